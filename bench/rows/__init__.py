"""One file per row of the target table; each has `async def measure(scale, folder) -> list[Result]`."""
