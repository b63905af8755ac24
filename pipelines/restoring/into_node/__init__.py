"""Verified parts handed over to a node through neard's own tool or configuration; writes into no database."""
