"""batch = the shares of all processes, one after the other: what each process of a run trains on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Processes:
    """This process, `rank` of `world`; `local` counts those on this machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this one writes the files."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Which rows of the whole batch are this process's."""
        if batch % self.world:
            raise ValueError(
                f"batch: expected a multiple of the {self.world} processes, got {batch}; "
                f"give {batch - batch % self.world or self.world}"
            )
        rows = batch // self.world
        return slice(self.rank * rows, (self.rank + 1) * rows)
