"""One file per row of the target table; each has `measure(scale, folder) -> list[Result]`."""
