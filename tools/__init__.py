"""Programs for developers: pictures, mutations, test recordings."""
