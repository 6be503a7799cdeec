"""The command line: absl mains behind `tf-lottery`."""
