"""PostgreSQL as this registry uses it."""
