"""What a DAG author composes: one module for each capability, and beside it what operators share.

The provider's metadata names those to import; for Sage all of them stand in ``sage``. ``arguments``, ``database``,
``failing``, ``files``, ``lineage`` and ``page_link`` serve many operators; ``loading``, ``replay``, ``run_period``,
``summary`` and ``waiting_pages`` those that load invoices; ``sage_…`` the upload.
"""
