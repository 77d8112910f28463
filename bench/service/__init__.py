"""The service: many users' suites over HTTP, one queue, one dispatcher. Who may do what, and what survives a kill."""
