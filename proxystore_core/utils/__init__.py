"""Small tools that know nothing of stores."""
