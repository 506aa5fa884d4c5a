# The workflow, one rule a stage, in the order in which data flows:
#
#     data -> reference ------------------+
#       \--> train -> sample -> score -> report
#
#     snakemake --cores all reports/table.pdf                 the table, on the mini scale
#     snakemake --cores all --config scale=smoke              the same on another scale
#
# Every value that decides a result reaches its rule through `params`, resolved from the YAML files before the
# first job starts: editing a comment reruns nothing, changing a value reruns the runs that it reaches.
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")
sys.path.insert(0, workflow.basedir)

from add.resolve import load_ablations, load_baseline, load_scale, resolve
from addbench.workflow import gpu_jobs, plain, report_figures, scale_file, values

SCALE_FILE = scale_file(config.get("scale", "mini"))
ABLATIONS = Path(config.get("ablations", "ablations"))
SCALE = load_scale(SCALE_FILE)
TABLE = resolve(
    SCALE, load_baseline(ABLATIONS / "baseline.yaml"), load_ablations(ABLATIONS)
)
RESULTS = f"results/{SCALE.name}"
DATA = f"{SCALE.data.root}/dataset.json"
SEEDS = SCALE.training.seeds
# 1 where jobs use a GPU, else 0; profiles/default allows one such job at a time.
GPU = gpu_jobs(config.get("gpu"))

# The jobs' python is the one that runs Snakemake, also where its environment is not activated.
shell.prefix(f'export PATH="{Path(sys.executable).parent}:$PATH"; ')


report: "reports/captions/workflow.rst"


wildcard_constraints:
    run="[a-z0-9_-]+",
    seed=r"\d+",


localrules:
    all,


rule all:
    input:
        "reports/table.pdf",


rule data:
    """The scale's data set (and, for smoke, its networks), where a module of the project makes it."""
    output:
        ensure(DATA, non_empty=True),
    log:
        f"{RESULTS}/logs/data.log",
    benchmark:
        f"{RESULTS}/benchmarks/data.tsv"
    conda:
        "environment.yml"
    params:
        build=SCALE.data.build,
        root=subpath(output[0], parent=True),
    shell:
        "python -m {params.build} --out {params.root} > {log} 2>&1"


rule reference:
    """What real images score: features for FID, its floor, and whether the extractor sees blur."""
    input:
        DATA,
    output:
        features=f"{RESULTS}/reference/features.safetensors",
        facts=f"{RESULTS}/reference/reference.json",
    log:
        f"{RESULTS}/logs/reference.log",
    benchmark:
        f"{RESULTS}/benchmarks/reference.tsv"
    conda:
        "environment.yml"
    resources:
        gpu=GPU,
    params:
        values=values(SCALE.evaluation, SCALE.sampling.prompts),
        scale=SCALE_FILE,
        out=subpath(output.facts, parent=True),
    shell:
        "python -m eval.reference --scale {params.scale} --out {params.out} > {log} 2>&1"


rule train:
    """One student: one variant, one training seed."""
    input:
        DATA,
    output:
        student=directory(f"{RESULTS}/{{run}}/seed{{seed}}/student"),
        spec=f"{RESULTS}/{{run}}/seed{{seed}}/spec.json",
        log=f"{RESULTS}/{{run}}/seed{{seed}}/train/log.jsonl",
        facts=ensure(f"{RESULTS}/{{run}}/seed{{seed}}/train/train.json", non_empty=True),
    log:
        f"{RESULTS}/logs/train-{{run}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train-{{run}}-seed{{seed}}.tsv"
    conda:
        "environment.yml"
    resources:
        gpu=GPU,
    params:
        spec=lambda wildcards: plain(TABLE.runs[wildcards.run]),
        out=subpath(output.student, parent=True),
    shell:
        "printf '%s\\n' {params.spec:q} > {output.spec} && "
        "python -m add.train --spec {output.spec} --seed {wildcards.seed} --out {params.out} > {log} 2>&1"


rule sample:
    """The student's images for every prompt set, by every number of steps."""
    input:
        student=rules.train.output.student,
    output:
        expand(
            f"{RESULTS}/{{{{run}}}}/seed{{{{seed}}}}/samples/{{prompts}}-{{steps}}step/samples.json",
            prompts=SCALE.sampling.prompts,
            steps=SCALE.sampling.steps,
        ),
    log:
        f"{RESULTS}/logs/sample-{{run}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/sample-{{run}}-seed{{seed}}.tsv"
    conda:
        "environment.yml"
    resources:
        gpu=GPU,
    params:
        values=values(SCALE.sampling),
        scale=SCALE_FILE,
        out=subpath(output[0], ancestor=2),
    shell:
        "python -m eval.sample --system {input.student} --scale {params.scale} --out {params.out} > {log} 2>&1"


rule score:
    """All metrics of one run and seed, with the protocol of each: one result.json."""
    input:
        samples=rules.sample.output,
        spec=rules.train.output.spec,
        facts=rules.train.output.facts,
        reference=rules.reference.output.facts,
    output:
        f"{RESULTS}/{{run}}/seed{{seed}}/result.json",
    log:
        f"{RESULTS}/logs/score-{{run}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score-{{run}}-seed{{seed}}.tsv"
    conda:
        "environment.yml"
    resources:
        gpu=GPU,
    params:
        values=values(SCALE.evaluation, SCALE.sampling),
        scale=SCALE_FILE,
        run=subpath(output[0], parent=True),
        reference=subpath(input.reference, parent=True),
    shell:
        "python -m eval.score --run {params.run} --scale {params.scale} --reference {params.reference} "
        "--out {output} > {log} 2>&1"


rule report:
    """The table in four formats, the figures, and the typeset document."""
    input:
        results=expand(rules.score.output, run=TABLE.runs, seed=SEEDS),
        logs=expand(rules.train.output.log, run=TABLE.runs, seed=SEEDS),
        reference=rules.reference.output.facts,
    output:
        pdf=report(
            "reports/table.pdf",
            caption="reports/captions/table.pdf.rst",
            category="Table",
        ),
        csv=report(
            "reports/table.csv",
            caption="reports/captions/table.csv.rst",
            category="Table",
        ),
        markdown=report(
            "reports/table.md",
            caption="reports/captions/table.md.rst",
            category="Table",
        ),
        latex=report(
            "reports/table.tex",
            caption="reports/captions/table.tex.rst",
            category="Table",
        ),
        figures=report_figures(report, SCALE.sampling.steps),
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report.tsv"
    conda:
        "environment.yml"
    params:
        cells=plain(TABLE.cells),
        scale_values=values(SCALE),
        scale=SCALE_FILE,
        ablations=ABLATIONS.as_posix(),
        results=subpath(input.reference, ancestor=2),
    shell:
        "python -m reports.table --scale {params.scale} --ablations {params.ablations} --results {params.results} "
        "--out reports > {log} 2>&1"
