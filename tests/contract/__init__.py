"""What every connection promises, checked over every transport, loop, kind of wire and codec."""
