//! Workflow files that are refused, and what is said of them.

use vmkit_sandbox::workflow::Workflow;

#[test]
fn refusals_name_the_key() {
    let job = "on: workflow_dispatch\njobs:\n  a:\n    runs-on: x\n    steps: [{run: ls}]\n";
    assert!(Workflow::parse(job).unwrap().dispatch.is_some());
    let table = [
        ("on: push\njobs: {}\n", "at least one job"),
        ("jobs:\n  a: {runs-on: x, steps: []}\n", "missing: on"),
        ("on: push\n", "missing: jobs"),
        ("on: push\njobs:\n  a: {steps: []}\n", "missing: runs-on"),
        ("on: push\njobs:\n  a: {runs-on: x, steps: [], matrix: 1}\n", "Unexpected value 'matrix'"),
        (
            "on: push\njobs:\n  a: {runs-on: x, steps: [], strategy: {}}\n",
            "does not play `strategy`",
        ),
        (
            "on: push\njobs:\n  a: {runs-on: x, steps: [{run: a, uses: b}]}\n",
            "either `run` or `uses`",
        ),
        ("on: push\njobs:\n  a: {runs-on: x, steps: [], needs: b}\n", "unknown job 'b'"),
        ("on: [push\n", "yaml syntax"),
    ];
    for (text, reason) in table {
        let error = Workflow::parse(text).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
}
