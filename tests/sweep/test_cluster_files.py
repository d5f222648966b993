"""The shipped files for clusters: as far as a machine without Slurm and Kubernetes can tell, they work."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scisci.sweep.cli import parser

CLUSTERS = Path(__file__).parents[2] / "configs" / "clusters"
SCRIPTS = sorted(CLUSTERS.glob("*.sh"))

# Fields of ray.io/v1 RayJob and of the pods in it, as far as the file uses them, with the type of each leaf.
POD: dict[str, Any] = {
    "spec": {
        "containers": [
            {
                "name": str,
                "image": str,
                "env": [{"name": str, "value": str}],
                "resources": {"limits": dict},
                "volumeMounts": [{"name": str, "mountPath": str}],
            }
        ],
        "volumes": [{"name": str, "persistentVolumeClaim": {"claimName": str}}],
    }
}
RAY_JOB: dict[str, Any] = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {
        "entrypoint": str,
        "backoffLimit": int,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "rayClusterSpec": {
            "headGroupSpec": {"rayStartParams": dict, "template": POD},
            "workerGroupSpecs": [
                {
                    "groupName": str,
                    "replicas": int,
                    "minReplicas": int,
                    "maxReplicas": int,
                    "rayStartParams": dict,
                    "template": POD,
                }
            ],
        },
    },
}


def conforms(value: Any, schema: Any, place: str = "") -> None:
    if isinstance(schema, dict):
        for key, inner in value.items():
            assert key in schema, f"unknown field {place}.{key}"
            conforms(inner, schema[key], f"{place}.{key}")
    elif isinstance(schema, list):
        for inner in value:
            conforms(inner, schema[0], place)
    else:
        assert type(value) is schema, place


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_job_script_calls_commands_as_they_are(path, tmp_path):
    """Run it with Slurm's and Ray's programs replaced by one that notes how it is called."""
    called = tmp_path / "called"
    for name in ("srun", "scisci", "scontrol"):
        program = tmp_path / name
        answer = "echo node1; echo node2" if name == "scontrol" else f'echo {name} "$@" >> {called}'
        program.write_text(f"#!/bin/sh\n{answer}\n")
        program.chmod(0o755)
    slurm = {
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_ARRAY_TASK_MAX": "64",
    }
    environment = os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", str(path), "study.yaml", "out"], env=environment, check=True)
    words = shlex.split(called.read_text())
    if words[0] == "srun":
        assert words[:3] == ["srun", "ray", "symmetric-run"]
        ray, words = words[3 : words.index("--")], words[words.index("--") + 1 :]
        assert ray == ["--address", "node1:6379", "--min-nodes", "2", "--num-cpus", "16", "--num-gpus", "0"]
        known = " ".join(ray_help(command) for command in ("symmetric-run", "start"))
        assert all(re.search(rf"{option}\b", known) for option in ray[::2])
    arguments = parser().parse_args(words[2:])
    assert words[:3] == ["scisci", "sweep", "run"]
    assert (str(arguments.study), str(arguments.out), arguments.budget) == ("study.yaml", "out", 7.5 * 3600)
    assert arguments.address == "auto" or (arguments.shard.index, arguments.shard.count) == (3, 64)
    limit = re.search(r"#SBATCH --time=(\d\d):00:00", path.read_text())
    assert limit
    assert arguments.budget < 3600 * int(limit[1])


def ray_help(command: str) -> str:
    from ray.scripts import scripts

    context = scripts.cli.commands[command].make_context(command, ["x"], resilient_parsing=True)
    return str(scripts.cli.commands[command].get_help(context))


def test_the_ray_job_has_known_fields_and_a_command_that_is_one():
    job = yaml.safe_load((CLUSTERS / "kuberay.yaml").read_text())
    conforms(job, RAY_JOB)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:2] == ["scisci", "sweep"]
    assert parser().parse_args(words[2:]).address == "auto"
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounted = [mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]]
        assert mounted == [volume["name"] for volume in pod["volumes"]]
