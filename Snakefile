# The workflow, one rule a stage, in the order in which data flows:
#
#     data -> reference ------------------+
#       \--> train -> sample -> score -> report
#                \--> system_samples, system_images -> system_score -/
#                          |--> timing -> report
#                          |--> automatic -> ratings -/      (and the folder of people's votes -> ratings)
#                          \--> study
#
# The report of each scale stays in reports/<scale>, that of another folder of ablations in reports/<scale>-<folder>;
# reports/table.pdf is a copy of the last. Runs lie in results/<scale>; those of another folder too, unless it has another
# run of a name that the table has: then all of its runs lie in results/<scale>-<folder>.
#
#     snakemake --cores all reports/table.pdf                 the table, on the mini scale
#     snakemake --cores all --config scale=smoke              the same on another scale
#     snakemake --cores all --config ablations=ablations/ours  questions that the paper does not ask
#     snakemake --cores all study                             the annotators' pages: results/<scale>/study/pages
#     snakemake --cores all replication                       the report of the study with many seeds, as it is shipped
#
# A rule's `identity` is what Snakemake compares: the values that decide its result, and digests of what people put
# there (images, captions, votes, weights). A comment, a path, a time of change or a setting that only says how work is
# done reruns nothing. What the job itself is given is a function of its `output`, which Snakemake does not compare.
# All of it is resolved before the first job starts: an edit while jobs run changes nothing of this workflow.
import sys
from itertools import product
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.0")
sys.path.insert(0, workflow.basedir)

from add.config.load import ABLATIONS as DEFAULT_ABLATIONS
from add.config.load import baseline_file, load_ablations, load_baseline, load_scale
from add.config.resolve import resolve
from add.errors import REFUSED, InputError
from addbench.identity import (
    data_identity,
    files_identity,
    of_all,
    reference_identity,
    stage_identity,
    train_identity,
    upstream,
)
from addbench.owner import free_dead_lock, note_owner
from addbench.preflight.inputs import check_inputs_exist
from addbench.project import DEFAULT_SCALE, scale_path
from addbench.workflow import (
    ablations_folder,
    build_options,
    gpu_jobs,
    plain,
    plan_compared,
    rating_values,
    refuse_unknown,
    report_figures,
    report_folder,
    report_study,
    results_folder,
    stage_values,
    systems_tables,
    train_options,
    training_source,
    whole_machine,
)
from eval.stage import (
    MeasureValues,
    RaterValues,
    RatingValues,
    SampleValues,
    ScoreValues,
    TimingValues,
)
from reports.study import packed

if workflow.is_main_process:
    free_dead_lock(Path(workflow.snakefile))

refuse_unknown(config, "scale", "ablations", "study", "gpu", "whole_runs_first")
SCALE = load_scale(scale_path(str(config.get("scale", DEFAULT_SCALE))))
ABLATIONS = ablations_folder(config.get("ablations", DEFAULT_ABLATIONS))
check_inputs_exist(SCALE)
BASELINE = load_baseline(baseline_file(ABLATIONS))
TABLE = resolve(SCALE, BASELINE, load_ablations(ABLATIONS))
RESULTS = results_folder(SCALE, ABLATIONS, TABLE)
# What the `data` stage makes. A scale without one names files that are already there: identities tell their change,
# whatever their age.
DATA = [f"{SCALE.data.root}/dataset.json"] if SCALE.data.build else []
REPORT = report_folder(SCALE, ABLATIONS)
SEEDS = SCALE.training.seeds
# What is compared; what people compare of it, and the votes that there are now.
SYSTEMS = plan_compared(SCALE, TABLE, RESULTS, whole=ABLATIONS == DEFAULT_ABLATIONS)
STUDY = SYSTEMS.study
REPORT_STUDY = packed(report_study(SCALE, BASELINE, TABLE, SYSTEMS))
# A study is never made again in its place, since people may be answering it: give another directory.
STUDY_DIRECTORY = config.get("study", f"{RESULTS}/study")
# 1 where jobs use a GPU, else 0; profiles/default allows one such job at a time. Each job holds a GPU of its own
# (add/device.py), and where no rule asks for one, no job sees one.
GPU = gpu_jobs(config.get("gpu"), SCALE)
THREADS = SCALE.training.threads
# A table trains first, so that no core waits at its end for a training. A study that grows wants each run whole as soon as
# may be: its result is added then, and what comes later can be killed.
TRAIN_FIRST = int(not config.get("whole_runs_first"))
# What decides each stage. A job also compares what decides the stages before it (`upstream`).
DATA_MADE = data_identity(SCALE)
REFERENCE = reference_identity(SCALE)
TRAIN = train_identity(SCALE, TABLE, RESULTS)
SAMPLE = stage_identity(SampleValues, SCALE)
SAMPLED = upstream(DATA_MADE, REFERENCE, TRAIN, SAMPLE)
SCORE = stage_identity(ScoreValues, SCALE)
COMPARED = upstream(
    DATA_MADE,
    REFERENCE,
    SAMPLE,
    of_all(TRAIN, STUDY.trained),
    STUDY.identity,
    STUDY.entries,
)
AUTOMATIC = stage_identity(RaterValues, SCALE)
RATED = upstream(COMPARED, AUTOMATIC, files_identity((*STUDY.records, *STUDY.keys)))
RATINGS = stage_identity(RatingValues, SCALE)
SCORED = of_all(upstream(SAMPLED, SCORE), product(TABLE.runs, SEEDS))
MEASURE = stage_identity(MeasureValues, SCALE)
SAMPLED_SYSTEMS = upstream(
    DATA_MADE, REFERENCE, SAMPLE, of_all(TRAIN, SYSTEMS.trained), SYSTEMS.identity
)
TIMES = SYSTEMS.times or []
TIMED = (
    upstream(
        DATA_MADE,
        stage_identity(TimingValues, SCALE),
        of_all(TRAIN, SYSTEMS.trained),
        SYSTEMS.timed_identity,
    )
    if TIMES
    else ""
)
COMPARISON = upstream(SAMPLED_SYSTEMS, SCORE, TIMED)
REPORTED = upstream(SCORED, COMPARISON, *((RATED, RATINGS) if STUDY.systems else ()))
SYSTEMS_CSV = systems_tables(SCALE, SYSTEMS)
# The results of the study that grows: how far runs spread. Of runs that lie apart there is another study.
REPLICATION = Path("replication", Path(RESULTS).name).as_posix()
REPLICATED = files_identity(
    sorted(file.as_posix() for file in Path(REPLICATION).rglob("*.json"))
)
# Asked here once, so that a fault in what people put there is said by itself, and not as one of a rule's function.
if workflow.is_main_process:
    try:
        REPORTED(None)
    except InputError as error:
        raise WorkflowError(str(error)) from None

# `stage LOG COMMAND...` runs a stage and keeps what it says. One that refuses its input (add.errors.REFUSED) is not tried
# again where Snakemake retries, since it would refuse it again; `onstart` lets the next workflow try.
STAGE = f"""stage() (
    log=$1 code=0; shift
    if [ -e "$log.refused" ]; then cp "$log.refused" "$log"; exit {REFUSED}; fi
    "$@" > "$log" 2>&1 || code=$?
    if [ $code = {REFUSED} ]; then cp "$log" "$log.refused"; fi
    exit $code
); """
# The jobs' python is the one that runs Snakemake, also where its environment is not activated.
# Where nothing compiled may be kept, every job compiles its libraries again, for 7 s each.
shell.prefix(
    STAGE + f'export PATH="{Path(sys.executable).parent}:$PATH"; '
    "unset PYTHONDONTWRITEBYTECODE; "
    + ("" if GPU else "export CUDA_VISIBLE_DEVICES=; ")
)
# Each input is copied to a file of its name in reports/, which appears whole.
COPY_LATEST = (
    'for file in {input:q}; do cp "$file" "reports/.${{file##*/}}.partial"; '
    'mv "reports/.${{file##*/}}.partial" "reports/${{file##*/}}"; done 2> {log:q}'
)


onstart:
    for refused in Path(RESULTS, "logs").glob("*.refused"):
        refused.unlink(missing_ok=True)
    note_owner()
    # Snakemake's limit of jobs a second makes it look at its queue once a second more with each job that it has begun:
    # an eighth of a core at the end of `make report`. Jobs here take minutes; a cluster's queue keeps its limit.
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None


report: "reports/captions/workflow.rst"


wildcard_constraints:
    run="[a-z0-9_-]+",
    seed=r"\d+",
    steps=r"\d+",


localrules:
    all,
    compared,
    latest,
    latest_systems,


rule all:
    input:
        "reports/table.pdf",


if SCALE.data.build:

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
        resources:
            # No value of the rule: another rule of evaluation leaves the data as they are.
            options=build_options(SCALE),
        params:
            identity=DATA_MADE,
            build=SCALE.data.build,
            root=subpath(output[0], parent=True),
        shell:
            "stage {log} python -m {params.build} --out {params.root:q} {resources.options}"


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
    threads: THREADS
    resources:
        gpu=GPU,
    params:
        identity=REFERENCE,
        scale=stage_values(MeasureValues, SCALE),
        out=subpath(output.facts, parent=True),
    shell:
        "stage {log} python -m eval.reference --scale {params.scale:q} --out {params.out:q}"


rule train:
    """One student: one variant, one training seed."""
    input:
        DATA or ancient(training_source(SCALE.data.train)),
    output:
        student=directory(f"{RESULTS}/{{run}}/seed{{seed}}/student"),
        spec=f"{RESULTS}/{{run}}/seed{{seed}}/spec.json",
        log=f"{RESULTS}/{{run}}/seed{{seed}}/train/log.jsonl",
        facts=ensure(f"{RESULTS}/{{run}}/seed{{seed}}/train/train.json", non_empty=True),
    log:
        f"{RESULTS}/logs/train-{{run}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train-{{run}}-seed{{seed}}.tsv"
    priority: TRAIN_FIRST
    conda:
        "environment.yml"
    threads: THREADS
    resources:
        gpu=GPU,
        # A cache changes how fast training is and not its result, so it is no value: having one reruns nothing.
        cache=train_options(SCALE.data.cache),
    params:
        identity=TRAIN,
        spec=lambda wildcards, output: plain(TABLE.runs[wildcards.run]),
        out=subpath(output.student, parent=True),
    shell:
        "printf '%s\\n' {params.spec:q} > {output.spec} && "
        "printf '%s\\n' {params.identity:q} > {params.out:q}/train/identity.json && "
        "stage {log} python -m add.train --spec {output.spec} --seed {wildcards.seed} --out {params.out:q} {resources.cache}"


rule sample:
    """The student's images for every prompt set, by every number of steps."""
    input:
        # A directory's age tells nothing of its content; train.json is written anew with every student.
        student=ancient(rules.train.output.student),
        facts=rules.train.output.facts,
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
    priority: 1 - TRAIN_FIRST
    conda:
        "environment.yml"
    threads: THREADS
    resources:
        gpu=GPU,
    params:
        identity=SAMPLE,
        scale=stage_values(SampleValues, SCALE),
        out=subpath(output[0], ancestor=2),
    shell:
        "stage {log} python -m eval.sample --system {input.student} --scale {params.scale:q} --out {params.out:q}"


rule score:
    """All metrics of one run and seed, with the protocol of each: one result.json."""
    input:
        samples=rules.sample.output,
        spec=rules.train.output.spec,
        facts=rules.train.output.facts,
        reference=rules.reference.output.facts,
    output:
        result=f"{RESULTS}/{{run}}/seed{{seed}}/result.json",
        images=expand(
            f"{RESULTS}/{{{{run}}}}/seed{{{{seed}}}}/scores/{{prompts}}-{{steps}}step.csv",
            prompts=SCALE.sampling.prompts,
            steps=SCALE.sampling.steps,
        ),
    log:
        f"{RESULTS}/logs/score-{{run}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score-{{run}}-seed{{seed}}.tsv"
    priority: 1 - TRAIN_FIRST
    conda:
        "environment.yml"
    threads: THREADS
    resources:
        gpu=GPU,
    params:
        identity=SCORE,
        upstream=SAMPLED,
        scale=stage_values(ScoreValues, SCALE),
        run=subpath(output.result, parent=True),
        reference=subpath(input.reference, parent=True),
    shell:
        "stage {log} python -m eval.score --run {params.run} --scale {params.scale:q} --reference {params.reference:q} "
        "--out {output.result}"


rule train_rival:
    """One student by another method, one training seed (baselines/)."""
    input:
        DATA or ancient(training_source(SCALE.data.train)),
    output:
        student=directory(f"{RESULTS}/systems/{{system}}/student"),
        spec=f"{RESULTS}/systems/{{system}}/spec.json",
        facts=ensure(f"{RESULTS}/systems/{{system}}/train/train.json", non_empty=True),
    log:
        f"{RESULTS}/logs/train_rival-{{system}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_rival-{{system}}.tsv"
    wildcard_constraints:
        system=SYSTEMS.wildcards("trained"),
    priority: TRAIN_FIRST
    conda:
        "environment.yml"
    threads: THREADS
    resources:
        gpu=GPU,
        cache=train_options(SCALE.data.cache),
    params:
        identity=lambda wildcards: SYSTEMS.rival(wildcards).deciding,
        spec=lambda wildcards, output: SYSTEMS.rival(wildcards).rival,
        seed=lambda wildcards, output: SYSTEMS.rival(wildcards).trained_seed,
        out=subpath(output.student, parent=True),
    shell:
        "printf '%s\\n' {params.spec:q} > {output.spec} && "
        "stage {log} python -m baselines.train --spec {output.spec} --seed {params.seed} --out {params.out:q} "
        "{resources.cache}"


rule system_samples:
    """The images of a system that the table does not sample, by one number of steps."""
    input:
        data=DATA,
        student=lambda wildcards: ancient(SYSTEMS.by_wildcards(wildcards).students),
        facts=lambda wildcards: SYSTEMS.by_wildcards(wildcards).trainings,
    output:
        expand(
            f"{RESULTS}/systems/{{{{system}}}}/samples/{{prompts}}-{{{{steps}}}}step/samples.json",
            prompts=SCALE.sampling.prompts,
        ),
    log:
        f"{RESULTS}/logs/system_samples-{{system}}-{{steps}}step.log",
    benchmark:
        f"{RESULTS}/benchmarks/system_samples-{{system}}-{{steps}}step.tsv"
    wildcard_constraints:
        system=SYSTEMS.wildcards("sampled"),
    conda:
        "environment.yml"
    threads: THREADS
    resources:
        gpu=GPU,
    params:
        identity=SAMPLE,
        system=lambda wildcards: SYSTEMS.by_wildcards(wildcards).deciding,
        source=lambda wildcards, output: SYSTEMS.by_wildcards(wildcards).source_text,
        scale=stage_values(SampleValues, SCALE),
        side=lambda wildcards, output: SCALE.evaluation.resolution,
        out=subpath(output[0], ancestor=2),
    shell:
        "stage {log} python -m eval.sample --source {params.source:q} --steps {wildcards.steps} --side {params.side} "
        "--scale {params.scale:q} --out {params.out:q}"


rule system_images:
    """Images that somebody hands in, for one prompt set."""
    input:
        DATA,
    output:
        f"{RESULTS}/systems/{{system}}/samples/{{prompts}}-{{steps}}step/samples.json",
    log:
        f"{RESULTS}/logs/system_images-{{system}}-{{prompts}}-{{steps}}step.log",
    benchmark:
        f"{RESULTS}/benchmarks/system_images-{{system}}-{{prompts}}-{{steps}}step.tsv"
    wildcard_constraints:
        system=SYSTEMS.wildcards("handed in"),
        prompts="|".join(SCALE.sampling.prompts),
    conda:
        "environment.yml"
    params:
        identity=MEASURE,
        system=lambda wildcards: SYSTEMS.by_wildcards(wildcards).deciding,
        options=lambda wildcards, output: SYSTEMS.by_wildcards(wildcards).handed_in(
            wildcards.prompts
        ),
        scale=stage_values(MeasureValues, SCALE),
        out=subpath(output[0], parent=True),
    shell:
        "stage {log} python -m eval.handed_in {params.options} --set {wildcards.prompts} --steps {wildcards.steps} "
        "--scale {params.scale:q} --out {params.out:q}"


rule system_statistics:
    """FID of a system of which somebody hands in mean and covariance alone."""
    input:
        reference=rules.reference.output.facts,
    output:
        f"{RESULTS}/systems/{{system}}/result-{{steps}}step.json",
    log:
        f"{RESULTS}/logs/system_statistics-{{system}}-{{steps}}step.log",
    benchmark:
        f"{RESULTS}/benchmarks/system_statistics-{{system}}-{{steps}}step.tsv"
    wildcard_constraints:
        system=SYSTEMS.wildcards("statistics"),
    conda:
        "environment.yml"
    threads: THREADS
    params:
        identity=MEASURE,
        upstream=upstream(DATA_MADE, REFERENCE),
        system=lambda wildcards: SYSTEMS.by_wildcards(wildcards).deciding,
        facts=lambda wildcards: SYSTEMS.by_wildcards(wildcards).facts,
        options=lambda wildcards, output: SYSTEMS.by_wildcards(wildcards).statistics,
        scale=stage_values(MeasureValues, SCALE),
        reference=subpath(input.reference, parent=True),
    shell:
        "stage {log} python -m eval.statistics_score {params.options} --steps {wildcards.steps} --facts {params.facts:q} "
        "--scale {params.scale:q} --reference {params.reference:q} --out {output}"


rule system_score:
    """All metrics of a system by one number of steps."""
    input:
        samples=lambda wildcards: SYSTEMS.by_wildcards(wildcards).every_sample,
        reference=rules.reference.output.facts,
    output:
        f"{RESULTS}/systems/{{system}}/result-{{steps}}step.json",
    log:
        f"{RESULTS}/logs/system_score-{{system}}-{{steps}}step.log",
    benchmark:
        f"{RESULTS}/benchmarks/system_score-{{system}}-{{steps}}step.tsv"
    wildcard_constraints:
        system=SYSTEMS.wildcards("images"),
    conda:
        "environment.yml"
    threads: THREADS
    resources:
        gpu=GPU,
    params:
        identity=MEASURE,
        upstream=upstream(DATA_MADE, REFERENCE, SAMPLE, SYSTEMS.decided(TRAIN)),
        facts=lambda wildcards: SYSTEMS.by_wildcards(wildcards).facts,
        scale=stage_values(MeasureValues, SCALE),
        folder=subpath(output[0], parent=True),
        reference=subpath(input.reference, parent=True),
    shell:
        "stage {log} python -m eval.score --system {params.folder:q} --steps {wildcards.steps} --facts {params.facts:q} "
        "--scale {params.scale:q} --reference {params.reference:q} --out {output}"


rule timing:
    """Time and memory of every system that a pipeline draws, all in one job that nothing runs beside."""
    input:
        data=DATA,
        students=ancient([each for s in SYSTEMS.timed for each in s.students]),
        facts=[each for s in SYSTEMS.timed for each in s.trainings],
    output:
        f"{RESULTS}/systems/timing.json",
    log:
        f"{RESULTS}/logs/timing.log",
    benchmark:
        f"{RESULTS}/benchmarks/timing.tsv"
    conda:
        "environment.yml"
    threads: whole_machine(workflow, THREADS)
    resources:
        gpu=GPU,
    params:
        identity=TIMED,
        entries=lambda wildcards, output: SYSTEMS.timed_entries,
        scale=stage_values(TimingValues, SCALE),
    shell:
        "stage {log} python -m eval.timing --systems {params.entries:q} --scale {params.scale:q} --out {output}"


rule compared:
    """What is compared under which name: the list that the study, the raters and the report read."""
    output:
        f"{RESULTS}/ratings/systems.json",
    log:
        f"{RESULTS}/logs/compared.log",
    conda:
        "environment.yml"
    params:
        entries=STUDY.entries,
    shell:
        "printf '%s\\n' {params.entries:q} > {output} 2> {log}"


rule study:
    """The annotators' pages, and beside them the key to their codes. The output only says that they were made."""
    input:
        systems=rules.compared.output,
        samples=STUDY.samples,
    output:
        f"{STUDY_DIRECTORY}.made",
    log:
        f"{RESULTS}/logs/study.log",
    benchmark:
        f"{RESULTS}/benchmarks/study.tsv"
    conda:
        "environment.yml"
    params:
        design=STUDY.options,
        out=subpath(output[0], strip_suffix=".made"),
    shell:
        "stage {log} python -m eval.preferences.study.make --systems {input.systems} --out {params.out:q} {params.design} "
        "&& cp {log:q} {output:q}"


rule automatic:
    """The automatic raters' votes on every pair, as a preference file that says what they are."""
    input:
        DATA,
        systems=rules.compared.output,
        samples=STUDY.samples,
        reference=rules.reference.output.facts,
    output:
        f"{RESULTS}/ratings/automatic.csv",
    log:
        f"{RESULTS}/logs/automatic.log",
    benchmark:
        f"{RESULTS}/benchmarks/automatic.tsv"
    conda:
        "environment.yml"
    threads: THREADS
    resources:
        gpu=GPU,
    params:
        identity=AUTOMATIC,
        upstream=COMPARED,
        scale=stage_values(RaterValues, SCALE),
        reference=subpath(input.reference, parent=True),
    shell:
        "stage {log} python -m eval.preferences.raters.automatic --systems {input.systems} --scale {params.scale:q} "
        "--reference {params.reference:q} --out {output}"


rule ratings:
    """People's votes and the automatic raters', each kind rated by itself."""
    input:
        DATA,
        ancient(STUDY.records),
        ancient(STUDY.keys),
        systems=rules.compared.output,
        automatic=rules.automatic.output,
    output:
        json=f"{RESULTS}/ratings/ratings.json",
        csv=report(
            f"{REPORT}/ratings.csv",
            caption="reports/captions/ratings.csv.rst",
            category="Ratings",
        ),
    log:
        f"{RESULTS}/logs/ratings.log",
    benchmark:
        f"{RESULTS}/benchmarks/ratings.tsv"
    conda:
        "environment.yml"
    params:
        identity=RATINGS,
        upstream=RATED,
        scale=rating_values(SCALE, STUDY, STUDY_DIRECTORY),
        study=STUDY_DIRECTORY,
    shell:
        "stage {log} python -m eval.preferences.rate_votes --scale {params.scale:q} --systems {input.systems} "
        "--automatic {input.automatic} --study {params.study:q} --json {output.json} --csv {output.csv}"


rule report:
    """The table in four formats, the figures, and the typeset document."""
    input:
        results=expand(rules.score.output.result, run=TABLE.runs, seed=SEEDS),
        logs=expand(rules.train.output.log, run=TABLE.runs, seed=SEEDS),
        reference=rules.reference.output.facts,
        systems=SYSTEMS.results,
        times=TIMES,
        ratings=rules.ratings.output.json if STUDY.systems else [],
        compared=STUDY.samples,
    output:
        pdf=report(
            f"{REPORT}/table.pdf",
            caption="reports/captions/table.pdf.rst",
            category="Table",
        ),
        csv=report(
            f"{REPORT}/table.csv",
            caption="reports/captions/table.csv.rst",
            category="Table",
        ),
        markdown=report(
            f"{REPORT}/table.md",
            caption="reports/captions/table.md.rst",
            category="Table",
        ),
        latex=report(
            f"{REPORT}/table.tex",
            caption="reports/captions/table.tex.rst",
            category="Table",
        ),
        findings=[f"{REPORT}/findings.csv", f"{REPORT}/findings.json"],
        systems=expand(f"{REPORT}/{{file}}", file=SYSTEMS_CSV),
        explorer=report(
            f"{REPORT}/explorer.html",
            caption="reports/captions/explorer.html.rst",
            category="Images",
        ),
        figures=report_figures(
            report, REPORT, SCALE.sampling.steps, bool(STUDY.systems)
        ),
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report.tsv"
    conda:
        "environment.yml"
    params:
        study=REPORT_STUDY,
        upstream=REPORTED,
        replicated=REPLICATED,
        results=subpath(input.reference, ancestor=2),
        out=subpath(output.pdf, parent=True),
    shell:
        "stage {log} python -m reports.table --study {params.study:q} --results {params.results:q} --out {params.out:q} "
        f"--explorer --replication {REPLICATION}"


rule systems:
    """The pages on systems alone, from the runs that they need."""
    input:
        systems=SYSTEMS.results,
        times=TIMES,
        reference=rules.reference.output.facts,
    output:
        pdf=f"{REPORT}/systems.pdf",
    log:
        f"{RESULTS}/logs/systems.log",
    benchmark:
        f"{RESULTS}/benchmarks/systems.tsv"
    conda:
        "environment.yml"
    params:
        study=REPORT_STUDY,
        upstream=COMPARISON,
        replicated=REPLICATED,
        results=subpath(input.reference, ancestor=2),
        out=subpath(output.pdf, parent=True),
    shell:
        "stage {log} python -m reports.table --systems --study {params.study:q} --results {params.results:q} "
        f"--out {{params.out:q}} --replication {REPLICATION}"


rule replication:
    """The report of all runs that are in the store of the study that grows; it trains nothing."""
    output:
        pdf=f"{REPORT}-replication/table.pdf",
        csv=f"{REPORT}-replication/findings.csv",
    log:
        f"{RESULTS}/logs/replication.log",
    conda:
        "environment.yml"
    params:
        study=REPORT_STUDY,
        replicated=REPLICATED,
        store=REPLICATION,
        out=subpath(output.pdf, parent=True),
    shell:
        "stage {log} python -m reports.table --study {params.study:q} --store {params.store:q} --out {params.out:q}"


rule latest:
    """The table of the scale that was made last, at one path. Snakemake removes a job's outputs before it runs it, so
    a copy that waits for the whole report keeps the last one until then."""
    input:
        rules.report.output.pdf,
        rules.report.output.csv,
        rules.report.output.markdown,
        rules.report.output.latex,
        rules.report.output.findings,
        rules.report.output.systems,
        rules.report.output.explorer,
    output:
        "reports/table.pdf",
        "reports/table.csv",
        "reports/table.md",
        "reports/table.tex",
        "reports/findings.csv",
        "reports/findings.json",
        expand("reports/{file}", file=SYSTEMS_CSV),
        "reports/explorer.html",
    log:
        f"{RESULTS}/logs/latest.log",
    conda:
        "environment.yml"
    params:
        study=REPORT_STUDY,
        upstream=REPORTED,
    shell:
        COPY_LATEST


rule latest_systems:
    """The same of the pages on systems alone: reports/systems.pdf."""
    input:
        rules.systems.output.pdf,
    output:
        "reports/systems.pdf",
    log:
        f"{RESULTS}/logs/latest_systems.log",
    conda:
        "environment.yml"
    params:
        study=REPORT_STUDY,
        upstream=COMPARISON,
    shell:
        COPY_LATEST
