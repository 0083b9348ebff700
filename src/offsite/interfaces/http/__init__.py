"""The HTTP interface, over TLS and over the control socket."""
