"""What a DAG author composes: one module for each capability, and beside it what operators share.

The provider's metadata names those to import; for Sage all of them stand in ``sage``. ``arguments``, ``database``,
``failing``, ``lineage`` and ``page_link`` serve every operator, ``loading``, ``pages``, ``replay``, ``run_period`` and
``summary`` those that load invoices, and ``sage_…`` the upload.
"""
