"""E-invoices out: what EN 16931 asks of a staged invoice, and the invoice as UBL 2.1; no I/O."""
