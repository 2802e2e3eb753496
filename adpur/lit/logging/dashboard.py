"""The comparison of W&B groups as a saved view, through the optional package wandb-workspaces."""

from collections.abc import Sequence
from typing import Any

from adpur.errors import ConfigError


def workspace(groups: Sequence[str], project: str, entity: str) -> Any:
    """A `wandb_workspaces.workspaces.Workspace` of the rows of some groups; nothing is sent.

    A row is a W&B run and a group is an evaluation, see `RowRuns`; panels read the fixed keys of
    `row_summary`.
    """
    ws, wr = packages()
    accuracy = wr.BarPlot(title="percent right", metrics=["robust/acc", "clean/acc"])
    plots = [
        wr.ScatterPlot(title=title, x=x, y="robust/acc")
        for title, x in (
            ("accuracy and robustness", "clean/acc"),
            ("robustness against network calls", "nfe"),
            ("robustness against seconds", "seconds"),
        )
    ]
    estimands = [
        wr.BarPlot(title=name.replace("_", " "), metrics=[f"robust/{name}", f"clean/{name}"])
        for name in ("worst_of_n", "majority")
    ]
    pictures = wr.MediaBrowser(title="t(x)", media_keys=["t_figure", "score_norm_figure"])
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"adpur: {', '.join(groups)}",
        sections=[
            ws.Section(name="Accuracy", panels=[accuracy, *plots], is_open=True),
            ws.Section(name="Estimands", panels=estimands, is_open=True),
            ws.Section(name="Levels and settings", panels=[pictures, wr.RunComparer()]),
        ],
        runset_settings=ws.RunsetSettings(
            filters=[ws.Metric("Group").isin(list(groups))],
            groupby=[ws.Metric("Group")],
            order=[ws.Ordering(ws.Summary("robust/acc"), ascending=False)],
        ),
    )


def packages() -> tuple[Any, Any]:
    """wandb-workspaces' modules for views and for panels, or how to get them."""
    try:
        from wandb_workspaces import workspaces
        from wandb_workspaces.reports import v2
    except ImportError:
        raise ConfigError(
            "adpur dashboard needs wandb-workspaces: pip install 'adpur[dashboard]'"
        ) from None
    return workspaces, v2
