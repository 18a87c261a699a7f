"""Large arguments and results of Globus Compute functions travel by reference."""
