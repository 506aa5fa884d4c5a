"""The subcommand plan: the costs of the whole table."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from add.config.scale import Scale
from add.errors import InputError, amount
from addbench.cost.shapes import (
    Arithmetic,
    configurations,
    images_sampled,
    parameter_counts,
    storage,
    system_images,
)
from addbench.cost.timing import (
    DeviceRate,
    MeasuredRuns,
    Time,
    benchmark_rate,
    measured_in_study,
    measured_rate,
    read_measured,
    rival_times,
    same_trainings,
    sampling_times,
    training_times,
)
from addbench.preflight import size
from addbench.project import RESULTS, Project, aligned, load_project
from addbench.replication import STORES
from addbench.workflow import ComparedSystems

Times = Mapping[str, Time]

A100 = 312.0
"""TFLOP/s in bf16 on tensor cores, as NVIDIA states it for the A100: the paper's card."""

SHARE = 0.35
"""The share of the rate that a step of this project should reach; train.json states what yours reached."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """`plan [--rate TFLOPS | --benchmark FILE] [--share S] [--results DIRECTORY] [--runs]`."""
    add = command.add_argument
    known = command.add_mutually_exclusive_group().add_argument
    timed = "what `python -m benchmarks.gpu_step` wrote on the device: its measured rate"
    known("--benchmark", type=Path, metavar="FILE", help=timed)
    stated = f"the device's matrix rate (default: {A100:g}, an A100 in bf16)"
    known("--rate", type=amount, metavar="TFLOPS", help=stated)
    reached = f"share of it that a step reaches, 0 to 1 (default: {SHARE:g})"
    add("--share", type=amount, default=SHARE, help=reached)
    earlier = "results of earlier runs (default: those of this table)"
    add("--results", type=Path, metavar="DIRECTORY", help=earlier)
    add("--runs", action="store_true", help="also list each run")


def plan(options: argparse.Namespace) -> tuple[str, int]:
    """Say what the whole table costs: runs, images, hours and disk, from measured runs or modelled, and which.

    Raises SpecError.
    """
    if options.rate == 0 or not 0 < options.share <= 1:
        raise InputError("--rate should be positive, and --share above 0 and at most 1")
    project = load_project(options.scale, options.ablations)
    scale, table = project.scale, project.table
    compared = project.compared()
    here = measured = read_measured(options.results or _earlier(project))
    if not (options.results or options.rate or options.benchmark):
        measured = _elsewhere(project, here) or here
    places, absent = configurations(scale)
    arithmetic = rate = None
    if not absent:
        arithmetic = Arithmetic(places)
        rate = _rate(options, project, measured, arithmetic)
    if arithmetic is not None and rate is not None:
        arithmetic.count_steps(run for run in table.runs.values() if not same_trainings(run, measured))
    trainings = training_times(table, measured, arithmetic, rate)
    samplings = sampling_times(scale, table, measured, arithmetic, rate)
    jobs = {rule: Time(s, known.how) for known in (measured, here) for rule, s in known.jobs.items()}
    of_rivals = rival_times(compared.rivals, here)
    parts = [_stages(project, compared, jobs, trainings, samplings, of_rivals)]
    if options.runs:
        rows = [("run", "train, hours", "how", "sample, hours", "how")]
        rows += [
            (name, _hours(each.seconds), each.how, _hours(samplings[name].seconds), samplings[name].how)
            for name, each in trainings.items()
        ]
        parts.append(aligned(rows))
    parts.append(_notes(project, compared, rate, measured, absent, places))
    return "\n\n".join(parts), 0


def _earlier(project: Project) -> Path:
    """The table's own results; those of its scale where it has none."""
    return project.results if project.results.is_dir() else RESULTS / project.scale.name


def _elsewhere(project: Project, here: MeasuredRuns) -> MeasuredRuns | None:
    """The study's runs of this table, where none of its runs was trained here; None where the study has none."""
    from eval.findings.present import present_study
    from eval.findings.store import read_store

    scale, table = project.scale, project.table
    if any(same_trainings(run, here) for run in table.runs.values()):
        return None
    for store in dict.fromkeys((STORES / project.results.name, STORES / scale.name)):
        if store.is_dir() and (found := read_store(store).counted(present_study(scale, table)).there):
            return measured_in_study(found)
    return None


def _rate(
    options: argparse.Namespace, project: Project, measured: MeasuredRuns, arithmetic: Arithmetic
) -> DeviceRate | None:
    """The rate of --benchmark or --rate, else the one that earlier runs reached, else that of an A100.

    None for a scale that trains on the processor, of which no rate is known.
    """
    if options.benchmark is not None:
        return benchmark_rate(options.benchmark)
    if options.rate is None:
        found = measured_rate(project.table, measured, arithmetic, project.scale)
        if found is not None or project.scale.training.device == "cpu":
            return found
    flops = (options.rate or A100) * 1e12 * options.share
    said = f"{options.share:.0%} of {options.rate or A100:g} TFLOP/s: stated, not measured"
    if options.rate is None:
        said += " (an A100; for another device give --rate or --benchmark, or plan again after a first run)"
    return DeviceRate(flops, flops, "modelled", said)


def _stages(
    project: Project,
    compared: ComparedSystems,
    known: Times,
    trainings: Times,
    samplings: Times,
    of_rivals: Sequence[Time],
) -> str:
    """The table of stages. known: a job's time by rule."""
    scale, table = project.scale, project.table
    seeds = len(scale.training.seeds)
    jobs = len(table.runs) * seeds
    trained = sum(run.training.steps * run.training.batch for run in table.runs.values()) * seeds
    sampled = images_sampled(scale, table)
    rivals = compared.rivals
    drawn = sum(rival.training.steps * rival.training.batch for rival in rivals)
    rival_rows = [_row("train_rival", len(rivals), drawn, of_rivals)] if rivals else []
    rows: list[tuple[str, ...]] = [
        ("stage", "jobs", "images", "hours", "how known"),
        _row("train", jobs, trained, list(trainings.values()) * seeds),
        *rival_rows,
        _row("sample", jobs, sampled, list(samplings.values()) * seeds),
    ]
    counts = {"score": (jobs, sampled), **_other_jobs(scale, compared)}
    rows += [_job(rule, *count, known.get(rule)) for rule, count in counts.items() if count[0]]
    total = sum(t.seconds for t in (*trainings.values(), *samplings.values())) * seeds
    total += sum(t.seconds for t in of_rivals)
    total += sum(known[rule].seconds * count for rule, (count, _) in counts.items() if rule in known)
    rows.append(("all that is known", "", "", _hours(total), ""))
    cells = f"{len(table.cells)} cells, {len(table.runs)} runs, {seeds} seed{'s' * (seeds != 1)} each"
    return f"scale {scale.name}: {cells}\n\n{aligned(rows)}"


def _other_jobs(scale: Scale, compared: ComparedSystems) -> dict[str, tuple[int, int]]:
    """(jobs, images) of each rule that is not of the table's runs; none where the scale has no use for it."""
    systems = list(compared.jobs.values())
    drawn = [system for system in systems if system.source is not None]
    taken_in = [system for system in systems if system.spec.images is not None]
    rated = bool(compared.study.systems)
    return {
        "data": (int(scale.data.build is not None), 0),
        "reference": (1, 0),
        "system_samples": (len(drawn), system_images(scale, drawn)),
        "system_images": (sum(len(system.sets) for system in taken_in), system_images(scale, taken_in)),
        "system_score": (len(drawn) + len(taken_in), system_images(scale, [*drawn, *taken_in])),
        "system_statistics": (sum(system.spec.statistics is not None for system in systems), 0),
        "timing": (int(bool(compared.times)), 0),
        "automatic": (int(rated), 0),
        "ratings": (int(rated), 0),
        "report": (1, 0),
    }


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g}"


def _row(stage: str, jobs: int, images: int, times: Sequence[Time]) -> tuple[str, ...]:
    hows = Counter(time.how for time in times)
    said = ", ".join(f"{count} {how}" if len(hows) > 1 else how for how, count in hows.items())
    hours = "?" if set(hows) == {"unknown"} else _hours(sum(time.seconds for time in times))
    return stage, str(jobs), f"{images:,}", hours, said


def _job(rule: str, jobs: int, images: int, each: Time | None) -> tuple[str, ...]:
    hours = "?" if each is None else _hours(each.seconds * jobs)
    how = "not known before the first" if each is None else f"{each.how}, the mean of earlier ones"
    return rule, str(jobs), f"{images:,}" if images else "", hours, how


def _notes(
    project: Project,
    compared: ComparedSystems,
    rate: DeviceRate | None,
    measured: MeasuredRuns,
    absent: list[str],
    places: dict[str, str],
) -> str:
    scale, table = project.scale, project.table
    lines = []
    if measured.how == "measured elsewhere":
        lines.append(
            f"hours: of one job after the other, as the study's runs (replication/) took on {measured.devices}; "
            "machines differ by a factor of three"
        )
    elif rate is not None:
        lines.append(
            f"hours: of one device (GPU hours, where it is one), one job after the other; arithmetic of each step "
            f"counted on the real networks' shapes, over {rate.said}"
        )
    elif not absent:
        lines.append("hours: nothing was measured yet; give --rate, or plan again after a first run")
    if absent:
        lines.append(f"no configuration is known of {', '.join(absent)}: only what was measured is counted")
    else:
        disk = storage(scale, table, compared, parameter_counts(scale, places))
        lines.append(
            f"disk: {size(disk.total)} under {project.results}: students {size(disk.students)}, checkpoints of one "
            f"training at a time {size(disk.checkpoints)}, images {size(disk.samples)}, training logs "
            f"{size(disk.logs)}, features {size(disk.reference)}; modelled: float32 weights, PNG at 2 bytes a pixel"
        )
    return "\n".join(lines)
