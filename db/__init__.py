"""The service's database: settings, pool, tables, statements, and an embedded PostgreSQL. It knows no HTTP."""
