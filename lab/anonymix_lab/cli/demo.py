"""`anonymix demo`: the whole story on sample photos, as a page with pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anonymix_plugin.cli.options import takes_photos
from anonymix_plugin.cli.report import EXIT_SOME_FAILED, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from anonymix_lab.demo.values import Story
    from anonymix_lab.demo.verdict import Verdict

__all__ = ["demo"]


@takes_photos
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where index.html and summary.json go.")
    ] = Path("out/demo"),
    photos: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Your own photos, one folder for each person; people are drawn otherwise."),
    ] = None,
    people: Annotated[
        int | None,
        typer.Option(metavar="N", min=2, help="How many people: 6 samples, or your first 8, by default."),
    ] = None,
    photos_each: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Sample photos of each person, at most 4.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Other sample photos of the same people.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Tell the whole story on sample photos, as a page with pictures: enrol, verify, revoke, rotate.

    The photos, the page and the keys stay on this machine; the keys are thrown away at the end. Ends with
    exit code 1 if the story does not hold: a destroyed key still works, or more than half of the comparisons
    of one kind end the wrong way. Single ones that do are shown on the page and make "ok" false.
    """
    from rich.console import Console

    from anonymix_lab.demo.page import render
    from anonymix_lab.demo.story import Plan, plan_seed, tell
    from anonymix_lab.demo.summary import as_text, summary
    from anonymix_lab.demo.verdict import rate_story
    from anonymix_plugin.files import make_folder, write_text

    # The folder first: that it can't be written to should not turn out after minutes.
    make_folder(output)
    console = Console(stderr=True, highlight=False)
    plan = Plan.of(photos=photos, people=people, photos_each=photos_each, seed=seed)
    with _Steps(console) as steps:
        story = tell(plan, steps)
    verdict = rate_story(story.trials, story.matchers, story.revocation.refusals)
    facts = summary(story, verdict, plan_seed(plan))
    write_text(output / "summary.json", as_text(facts))
    write_text(output / "index.html", render(story, verdict, facts))
    if as_json:
        print_json(facts)
    else:
        _print(Console(highlight=False), story, verdict, output / "index.html")
    if not verdict.holds:
        raise typer.Exit(EXIT_SOME_FAILED)


class _Steps:
    """A bar for the step in progress and a line for each that is done."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: Any = None
        self._name = ""

    def __enter__(self) -> _Steps:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, step: str, total: int | None) -> None:
        """See `story.Progress`."""
        self._name = step
        self._task = self._bar.add_task(step, total=total)

    def advance(self) -> None:
        """See `story.Progress`."""
        self._bar.advance(self._task)

    def end(self, seconds: float) -> None:
        """See `story.Progress`."""
        self._bar.remove_task(self._task)
        self._console.print(f"[green]✓[/] {self._name} [dim]{seconds:.1f} s")


def _print(console: Console, story: Story, verdict: Verdict, page: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    from anonymix_lab.demo.verdict import CHAPTERS

    titles = {matcher.name: matcher.title for matcher in story.matchers}
    table = Table(title="What happened", title_justify="left")
    table.add_column("attempt")
    table.add_column("should be")
    for matcher in story.matchers:
        table.add_column(f"{titles[matcher.name]} ≥ {matcher.threshold:.2f}", justify="right", no_wrap=True)
    for chapter, (title, _) in CHAPTERS.items():
        if findings := verdict.of(chapter):
            cells = [
                f"[{'green' if one.right == one.count else 'red'}]{one.right} of {one.count}[/]" for one in findings
            ]
            table.add_row(title, "accepted" if findings[0].accept else "rejected", *cells)
    refused = "[green]yes[/]" if verdict.refused else "[bold red]NO[/]"
    table.add_row("With a destroyed key", "refused", *[refused for _ in story.matchers])
    console.print(table)
    for entry in story.missing_matchers:
        console.print(f"[yellow]{entry.what} could not take part:[/] {escape(entry.why)}")
    for entry in story.skipped:
        console.print(f"[yellow]left out[/] {escape(entry.what)}: {escape(entry.why)}")
    wrong = sum(one.count - one.right for one in verdict.findings)
    count = sum(one.count for one in verdict.findings)
    if verdict.ok:
        console.print(f"[bold green]All {count} comparisons ended as they should.[/]")
    else:
        console.print(f"[bold yellow]{wrong} of {count} comparisons did not end as they should.[/]")
        if verdict.wrong_recalibrated is not None:
            limits = ", ".join(f"{matcher.title} ≥ {matcher.recalibrated_threshold:.2f}" for matcher in story.matchers)
            console.print(f"With thresholds for cancelable faces ({limits}) it would be {verdict.wrong_recalibrated}.")
    seconds = sum(stage.seconds for stage in story.stages)
    faces = sum(stage.faces for stage in story.stages)
    console.print(f"{faces} cancelable faces in {seconds:.0f} s. The page:")
    console.print(str(page.resolve()), style="bold", markup=False, soft_wrap=True)
