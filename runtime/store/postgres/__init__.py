"""The PostgreSQL store: the same statements and decisions as SQLite's, on a connection that speaks PostgreSQL. Needs psycopg 3."""
