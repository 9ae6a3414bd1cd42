"""img2dataset, told to leave the bytes as they are (it re-encodes by default, and then nothing could be compared)."""

from __future__ import annotations

from pathlib import Path

from tests.bench.measure import Command
from tests.bench.tools import Job, Tool, in_environment

_program = in_environment("img2dataset", "img2dataset")


def _common(job: Job, target: Path) -> list[str]:
    argv = [_program() or "img2dataset", f"--url_list={job.urls_file}", f"--output_folder={target}/out"]
    keep = [
        "--resize_mode=no",
        "--disable_all_reencoding=True",
        "--encode_format=png",
        "--encode_quality=9",
        "--output_format=files",
    ]
    return [*argv, *keep, "--enable_wandb=False"]


def _environ(job: Job) -> dict[str, str]:
    return {"NO_ALBUMENTATIONS_UPDATE": "1", **({"SSL_CERT_FILE": str(job.ca_file)} if job.tls else {})}


def _default(job: Job, target: Path) -> Command:
    return Command(_common(job, target), target, _environ(job))


def _best(job: Job, target: Path) -> Command:
    tuned = ["--processes_count=2", f"--thread_count={200 if job.far else 16}", "--number_sample_per_shard=1000"]
    return Command([*_common(job, target), *tuned, "--timeout=60"], target, _environ(job))


TOOLS = tuple(
    Tool(
        "img2dataset",
        variant,
        _program,
        (),
        "python -m tests.bench --install",
        command,
        lambda job: job.small and not job.durable,
        heavy=True,
    )
    for variant, command in (("default", _default), ("best", _best))
)
"""Small files only: it takes pictures into memory, and gives each file ten seconds."""
