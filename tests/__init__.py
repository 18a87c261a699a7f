"""Without this file the package `tests` that globus-compute-endpoint installs takes the name."""
