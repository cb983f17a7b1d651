"""A model of a run of initmig, step by step, without a database.

If a run is killed, the database must be in one of the states of its model run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tests.support.model import Part, Progress, Record
from tests.support.order import in_order_of_yoyo

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.support.model import Direction, File, Image, Policy, State


class _Exit(Exception):
    """The run ends here, with this exit code."""

    def __init__(self, code: int) -> None:
        self.code = code


class ModelRun:
    """The *states* of a run, and its exit *code*."""

    def __init__(self, state: State) -> None:
        self.states = [state]
        self.code = 0
        self.is_noop = False
        """Whether it must not write anything, not even a lock."""

    @property
    def now(self) -> State:
        return self.states[-1]

    def _add(self, state: State) -> None:
        self.states.append(state)

    # --- one migration ---

    def _apply(self, file: File, hooks_to_run: Iterable[str] = ()) -> None:
        state = self._run(file, "apply").without_progress(file.id)
        state = state.logged("apply", file.id)
        if file.is_hook:
            state = state._replace(pending_hooks=state.pending_hooks - {file.id})
        else:
            record = Record(file.id, file.checksum(), file.breaking)
            state = state._replace(
                applied=(*state.applied, record),
                pending_hooks=state.pending_hooks | frozenset(hooks_to_run),
            )
            for hook in hooks_to_run:
                state = state.without_progress(hook)
        self._add(state)

    def _roll_back(self, file: File) -> None:
        state = self._run(file, "rollback").without_progress(file.id)
        self._add(state.logged("rollback", file.id).without(file.id))

    def _run(self, file: File, direction: Direction) -> State:
        """The state that lacks only the record."""
        if file.is_non_transactional:
            self._run_parts(file, direction)
            return self.now
        state = self.now
        for part in file.parts(direction):
            if part.fails:
                raise _Exit(1)
            state = state.after(part, file.table)
        return state

    def _run_parts(self, file: File, direction: Direction) -> None:
        progress = self.now.half_applied.get(file.id)
        checksum = file.checksum(direction)
        if progress is None or (file.is_hook and progress.checksum != checksum):
            self._note(file, Progress(direction, checksum))
            self.states[-1] = self.now.without_checksum(file)
        elif progress.checksum != checksum:
            # the changed file does not have the statement that was in doubt
            self._note(file, progress._replace(checksum=checksum, doubt=""))
        parts = file.parts(direction)
        for part in parts[self.now.half_applied[file.id].done :]:
            if part.alone:
                self._run_alone(file, part)
            elif part.fails:
                raise _Exit(1)
            else:
                done = self._progress(file).done + 1
                progress = self._progress(file)._replace(done=done)
                self._add(self.now.after(part, file.table).with_progress(file, progress))

    def _run_alone(self, file: File, part: Part) -> None:
        was_in_doubt = self._progress(file).doubt
        valid = self.now.indexes.get(part.on_index)
        if not was_in_doubt:
            self._note(file, self._progress(file)._replace(doubt="existing" if valid else "new"))
        if part.does == "create" and valid is False:
            self._add(self.now.without_index(part.on_index))
        if not (was_in_doubt == "new" and part.does == "create" and valid):
            if part.does == "create" and valid:
                raise _Exit(1)
            if part.fails:
                if part.on_index:
                    self._add(self.now._replace(indexes={**self.now.indexes, part.on_index: False}))
                raise _Exit(1)
            state = self.now.after(part, file.table)
            if part.does == "drop":
                state = state.with_progress(file, self._progress(file)._replace(doubt="new"))
            self._add(state)
        progress = self._progress(file)
        self._note(file, progress._replace(done=progress.done + 1, doubt=""))

    def _progress(self, file: File) -> Progress:
        return self.now.half_applied[file.id]

    def _note(self, file: File, progress: Progress) -> None:
        self._add(self.now.with_progress(file, progress))

    # --- refusals ---

    def _refuse_if(self, condition: object) -> None:
        if condition:
            raise _Exit(6)

    def _refuse_changed(self, image: Image, policy: Policy) -> None:
        self._refuse_if(policy != "allow" and seems_shared(self.now, image))
        self._refuse_if(policy == "fail" and changed_ids(self.now, image))

    def _refuse_half_applied(
        self, files: Sequence[File], direction: Direction, policy: Policy
    ) -> None:
        by_id = {file.id: file for file in files}
        for id, progress in self.now.half_applied.items():
            if not id.startswith("post-apply"):
                self._refuse_if(progress.direction != direction or id not in by_id)
        for id, progress in self.now.half_applied.items():
            if id in by_id and policy != "allow":
                self._refuse_if(progress.checksum != by_id[id].checksum(direction))


class Migrate(ModelRun):
    """`migrate`."""

    def __init__(  # noqa: PLR0913
        self,
        state: State,
        image: Image,
        *,
        to: str = "",
        changed: Policy = "warn",
        transaction: Literal["each", "all"] = "each",
        last_known: str = "",
    ) -> None:
        """*last_known* is the checksum of the image's last migration in initmig's table."""
        super().__init__(state)
        self._image = image
        self._last_known = last_known
        self._to = to
        self._changed: Policy = changed
        self._transaction = transaction
        try:
            self._do()
        except _Exit as end:
            self.code = end.code

    def _do(self) -> None:
        image, start = self._image, self.now
        unknown = [record for record in start.applied if record.id not in image.files]
        self._refuse_if(any(record.breaking for record in unknown))
        if unknown or self._changed == "fail" or self._last_differs():
            self._refuse_changed(image, self._changed)
        pending = [file for file in image.migrations if not start.has(file.id)]
        pending_hooks = [hook for hook in image.hooks if hook.id in start.pending_hooks]
        half_rolled_back = [
            id for id, progress in start.half_applied.items() if progress.direction == "rollback"
        ]
        if not (self._selected(pending) or pending_hooks or half_rolled_back):
            self.is_noop = True
            return
        if any(file.invalid for file in (*pending, *image.hooks)):
            raise _Exit(2)
        plan = self._with_dependencies(self._selected(in_order(pending)))
        self._refuse_if(bool(half_rolled_back))
        if plan:
            self._refuse_half_applied(plan, "apply", self._changed)
            self._refuse_changed(image, self._changed)
        if self._transaction == "all":
            self._refuse_if(any(file.is_non_transactional for file in plan))
        self._apply_plan(plan)
        for hook in image.hooks if plan else pending_hooks:
            self._apply(hook)

    def _apply_plan(self, plan: Sequence[File]) -> None:
        begin = len(self.states)
        hooks_to_run = [hook.id for hook in self._image.hooks]
        try:
            for file in plan:
                self._apply(file, hooks_to_run)
        finally:
            if self._transaction == "all":
                # either all of them, or nothing
                whole = len(self.states) - begin == len(plan)
                self.states[begin:] = self.states[-1:] if whole and plan else []

    def _last_differs(self) -> bool:
        """Whether the last file has changed, which a no-op compares."""
        [*_, last] = [file.checksum() for file in self._image.migrations] or [""]
        return bool(self._last_known) and self._last_known != last

    def _selected(self, pending: Sequence[File]) -> list[File]:
        ids = [file.id for file in pending]
        if not self._to:
            return list(pending)
        self._refuse_if(self._to not in [file.id for file in self._image.migrations])
        if self._to in ids:
            return list(pending[: ids.index(self._to) + 1])
        return [file for file in pending if file.id < self._to]

    def _with_dependencies(self, plan: Sequence[File]) -> list[File]:
        """The migrations in *plan* whose dependencies are applied, or come before them."""
        ids = {record.id for record in self.now.applied}
        kept = []
        for file in plan:
            if not file.depends or file.depends in ids:
                ids.add(file.id)
                kept.append(file)
        return kept


class Rollback(ModelRun):
    """`rollback`: a number of *steps*, or to the migration *to*, or everything."""

    def __init__(
        self, state: State, image: Image, *, steps: int = 0, to: str = "", changed: Policy = "warn"
    ) -> None:
        super().__init__(state)
        try:
            self._do(image, steps, to, changed)
        except _Exit as end:
            self.code = end.code

    def _do(self, image: Image, steps: int, to: str, changed: Policy) -> None:
        start = self.now
        if not (start.applied or start.pending_hooks):
            self._refuse_half_applied([], "rollback", changed)
            self.is_noop = True
            return
        newest_first = [record.id for record in reversed(start.applied)]
        if to:
            self._refuse_if(to not in newest_first)
            steps = newest_first.index(to)
        chosen = newest_first[:steps] if steps or to else newest_first
        kept = [record for record in start.applied if record.id not in chosen]
        self._refuse_if(any(each.breaking for each in kept if each.id not in image.files))
        if chosen or changed == "fail":
            self._refuse_changed(image, changed)
        files = [image.files[id] for id in chosen if id in image.files]
        if any(file.invalid for file in files):
            raise _Exit(2)
        self._refuse_if(len(files) < len(chosen) or not all(file.reversible for file in files))
        self._refuse_half_applied(files, "rollback", changed)
        for file in files:
            self._roll_back(file)


class ManualChange(ModelRun):
    """A person applies or undoes a migration by hand, and only writes its row."""

    def __init__(self, state: State, file: File, direction: Direction) -> None:
        super().__init__(state)
        for part in file.parts("apply") if direction == "apply" else (Part("", does="drop"),):
            self._add(self.now.after(part, file.table))
        if direction == "apply":
            record = Record(file.id, "", breaking=False)
            self._add(self.now._replace(applied=(*self.now.applied, record)))
        else:
            self._add(self.now.without(file.id))


class YoyoRun(ModelRun):
    """A run of stock yoyo, without half-applied migrations and without failures."""

    def __init__(self, state: State, image: Image, direction: Direction) -> None:
        super().__init__(state)
        migrations = in_order(image.migrations)
        if direction == "apply":
            pending = [file for file in migrations if not state.has(file.id)]
            for file in in_order(pending):
                self._apply_unrecorded(file)
            for hook in image.hooks if pending else ():
                self._apply_unrecorded(hook)
        else:
            applied = [file for file in image.migrations if state.has(file.id)]
            for file in reversed(in_order(applied)):
                self._roll_back_without_journal(file)

    def _apply_unrecorded(self, file: File) -> None:
        state = self._all_parts(file, "apply")
        state = state.logged("apply", file.id)
        if not file.is_hook:
            state = state._replace(applied=(*state.applied, Record(file.id, "", False)))
        self._add(state)

    def _roll_back_without_journal(self, file: File) -> None:
        state = self._all_parts(file, "rollback")
        self._add(state.logged("rollback", file.id).without(file.id))

    def _all_parts(self, file: File, direction: Direction) -> State:
        state = self.now
        for part in file.parts(direction):
            state = state.after(part, file.table)
        return state


def in_order(files: Sequence[File]) -> list[File]:
    """*files* in the order in which yoyo applies them."""
    by_id = {file.id: file for file in files}
    return [by_id[id] for id in in_order_of_yoyo({id: {by_id[id].depends} for id in by_id})]


def changed_ids(state: State, image: Image) -> list[str]:
    """The applied migrations whose file in *image* is a different one."""
    return [
        record.id
        for record in state.applied
        if record.checksum
        and record.id in image.files
        and record.checksum != image.files[record.id].checksum()
    ]


def seems_shared(state: State, image: Image) -> bool:
    """Whether every file differs from the applied one, as in another application's history."""
    known = [record for record in state.applied if record.id in image.files]
    compared = [record for record in known if record.checksum]
    others = len(known) < len(state.applied)
    different = changed_ids(state, image)
    return 0 < len(different) == len(compared) and (others or len(compared) > 1)


def expected_statuses(state: State, image: Image) -> dict[str, tuple[str, int | None]]:
    """The expected `status` of each migration: its state, and how many parts are done."""
    changed = changed_ids(state, image)
    expected: dict[str, tuple[str, int | None]] = {}
    for file in (
        *image.migrations,
        *(hook for hook in image.hooks if hook.id in state.pending_hooks),
    ):
        progress = state.half_applied.get(file.id)
        if progress:
            expected[file.id] = _progress(progress)
        elif not state.has(file.id):
            expected[file.id] = ("pending", None)
        else:
            expected[file.id] = ("changed" if file.id in changed else "applied", None)
    unknown = [record.id for record in state.applied if record.id not in image.files]
    for id in (*unknown, *state.half_applied):
        progress = state.half_applied.get(id)
        expected.setdefault(id, _progress(progress) if progress else ("unknown", None))
    return expected


def _progress(progress: Progress) -> tuple[str, int]:
    return "applying" if progress.direction == "apply" else "rolling back", progress.done
