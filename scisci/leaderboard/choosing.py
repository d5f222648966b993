"""Which of a submission's configurations its errors are of: the one that in-distribution validation prefers."""

from __future__ import annotations

import numpy as np
import pandas as pd

CELL = ("treatment", "size", "data")
VALIDATION = "lowest error on the validation split"
COMPUTE = "most training compute"
WORK = "most parameters times samples seen"


def choose(rows: pd.DataFrame) -> pd.DataFrame:
    """The chosen configuration of each model [index: slug], with the columns of `CELL` and `chosen_by`.

    `rows` are those of one metric, one per run and split, `val` among them. Means over seeds are compared: of the error
    on `val` where all runs of the model predicted it, else of the training FLOPs where all are known, else of
    parameters times samples seen. No test split has a say.
    """
    runs = rows.drop_duplicates("run").copy()
    runs["val"] = runs.run.map(rows[rows.split == "val"].set_index("run").value)
    runs["work"] = runs.params * runs.samples_seen
    known = runs[["val", "flops"]].notna().groupby(runs.slug).all()
    cells = runs.groupby(["slug", *CELL], as_index=False)[["val", "flops", "work"]].mean()
    has = [known.loc[cells.slug, name].to_numpy() for name in ("val", "flops")]
    cells["chosen_by"] = np.select(has, [VALIDATION, COMPUTE], WORK)
    cells["order"] = np.select(has, [cells.val, -cells.flops], -cells.work)
    best = cells.sort_values(["slug", "order", *CELL]).drop_duplicates("slug").set_index("slug")
    return best[[*CELL, "chosen_by"]]
