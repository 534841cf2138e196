"""What a DAG author composes: one module for each capability."""
