"""The durable record: one interface (`interface.Ledger`), one file for each database.

Not here: any decision. A ledger writes what it is given, in one transaction, or says why it could not.
"""
