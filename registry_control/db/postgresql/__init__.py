"""PostgreSQL: Django backend, prepared statements, pipeline for the event loop, timeouts."""
