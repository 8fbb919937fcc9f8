"""Pure parts of the wire: no await, no clock, no socket."""
