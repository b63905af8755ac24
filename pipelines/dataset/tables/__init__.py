"""A dataset as typed tables: Parquet files, and Ray Data's source and sink."""
