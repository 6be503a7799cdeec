"""The attack suite; a package, for its conftest has a name of its own then."""
