"""A file of its own, or the package `tests` that globus-compute-endpoint installs takes the name."""
