//! Messages flow as the graph says: fan-out, fan-in, branches that end, folds.

mod support;

use leatworks::{
    Context, Fold, Route, Task, TaskError,
    def::Kind,
    open_fold, open_routed, open_task,
    run::{RunOptions, Stop},
};
use serde::{Deserialize, Serialize};
use support::*;
use tokio::sync::watch;

/// Gives its input `N` times.
#[derive(Deserialize)]
struct Times<const N: usize>;

impl<const N: usize> Task for Times<N> {
    type In = u64;
    type Out = u64;

    async fn run(&self, input: u64, _cx: &Context) -> Result<Vec<u64>, TaskError> {
        Ok(vec![input; N])
    }
}

/// Gives `0..N` for any message.
#[derive(Deserialize)]
struct Generate<const N: u64>;

impl<const N: u64> Task for Generate<N> {
    type In = serde_json::Value;
    type Out = u64;

    async fn run(&self, _input: serde_json::Value, _cx: &Context) -> Result<Vec<u64>, TaskError> {
        Ok((0..N).collect())
    }
}

fn times<const N: usize>() -> Kind {
    Kind::Rust(open_task::<Times<N>>)
}

#[tokio::test(flavor = "multi_thread")]
async fn fan_out_copies_exactly() {
    let topology = topology(
        "fan",
        vec![node("t1", times::<1>()), node("t2", times::<2>()), node("t3", times::<3>()), node("t4", times::<4>())],
        &["t1-->t2", "t1-->t3", "t2-->t4", "t3-->t4"],
    );
    let report = run_roots(memory(), topology, 1000).await;
    let handled: Vec<u64> = report.tasks.values().map(|task| task.handled).collect();
    let emitted: Vec<u64> = report.tasks.values().map(|task| task.emitted).collect();
    assert_eq!((handled, emitted), (vec![1000, 1000, 1000, 5000], vec![1000, 2000, 3000, 20_000]));
    assert_eq!((report.sent, report.done, report.dead_lettered, report.in_flight), (1000, 1000, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_gives_nothing_does_not_take_the_other_branch_with_it() {
    let topology = topology(
        "diamond",
        vec![
            node("t1", times::<1>()),
            node("t2", times::<1>()),
            node("t3", times::<0>()),
            node("t4", times::<1>()),
            node("t5", times::<1>()),
        ],
        &["t1-->t2", "t1-->t3", "t2-->t4", "t3-->t4", "t4-->t5"],
    );
    let report = run_roots(memory(), topology, 100).await;
    assert_eq!((report.tasks["t5"].handled, report.tasks["t3"].emitted, report.done), (100, 0, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topology_without_a_source_is_started_by_one_message_and_ends_by_itself() {
    let topology = topology(
        "generated",
        vec![node("start", Kind::Rust(open_task::<Generate<7>>)), node("count", times::<1>())],
        &["start-->count"],
    );
    let broker = memory();
    for _ in 0..2 {
        let report = run_with(broker.clone(), topology, RunOptions::default()).await.expect("it ends");
        assert_eq!((report.sent, report.done, report.tasks["start"].handled, report.tasks["count"].handled), (1, 1, 1, 7));
    }
}

#[derive(Route, Serialize, Deserialize)]
enum Parity {
    Even(u64),
    Odd { number: u64 },
    NoneOfThem,
}

#[derive(Deserialize)]
struct Split;

impl Task for Split {
    type In = u64;
    type Out = Parity;

    async fn run(&self, number: u64, _cx: &Context) -> Result<Option<Parity>, TaskError> {
        Ok(Some(match number {
            13 => Parity::NoneOfThem,
            even if even % 2 == 0 => Parity::Even(even),
            number => Parity::Odd { number },
        }))
    }

    fn key(output: &Parity) -> Option<String> {
        matches!(output, Parity::Even(_)).then(|| "even".to_owned())
    }
}

/// Sums, and gives the sum and count at the end.
#[derive(Deserialize)]
struct Sum;

impl Fold for Sum {
    type In = u64;
    type Out = (u64, u64);
    type State = (u64, u64);

    fn fold(&self, state: &mut (u64, u64), input: u64, _cx: &Context) -> Result<(), TaskError> {
        state.0 += input;
        state.1 += 1;
        if input == 7 {
            return Err(TaskError::permanent("seven is refused, after the state was touched"));
        }
        Ok(())
    }

    async fn finish(&self, state: (u64, u64), _cx: &Context) -> Result<(u64, u64), TaskError> {
        Ok(state)
    }
}

#[derive(Deserialize)]
struct Check;

impl Task for Check {
    type In = (u64, u64);
    type Out = ();

    async fn run(&self, (sum, count): (u64, u64), _cx: &Context) -> Result<(), TaskError> {
        // 0..10 without 7: once by each way.
        if (sum, count) == (38, 9) { Ok(()) } else { Err(TaskError::permanent(format!("{sum} of {count}"))) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_route_and_folds_finish_when_all_is_in() {
    for codec in [leatworks::Codec::Json, leatworks::Codec::MessagePack] {
        let topology = topology_with(
            "folded",
            codec,
            vec![
                node("start", Kind::Rust(open_task::<Generate<10>>)),
                node("split", Kind::Rust(open_routed::<Split>)).ends(&["none-of-them"]),
                node("sum", Kind::Fold(open_fold::<Sum>)),
                node("check", Kind::Rust(open_task::<Check>)),
            ],
            &["start-->split", "split-->|even|sum", "split-->|odd|sum", "sum-->check"],
        );
        let broker = memory();
        let report = run_with(broker.clone(), topology, RunOptions::default()).await.expect("it ends");
        assert_eq!(report.tasks["split"].handled, 10);
        assert_eq!((report.tasks["sum"].handled, report.tasks["sum"].failed, report.tasks["sum"].emitted), (9, 1, 1));
        assert_eq!((report.tasks["check"].handled, report.tasks["check"].failed), (1, 0));
        assert_eq!((report.sent, report.done, report.dead_lettered, report.in_flight), (1, 0, 1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fold_behind_dispatchers_elsewhere_takes_each_message_once() {
    let topology = topology("once", vec![node("sum", Kind::Fold(open_fold::<Sum>))], &[]);
    let roots: Vec<_> =
        (0..3_u64).map(|number| leatworks::new_root(number.to_string().into(), leatworks::Codec::Json, None)).collect();
    for (elsewhere, handled) in [(true, [2, 1]), (false, [4, 3])] {
        let broker = memory();
        leatworks::topics::create(broker.as_ref(), &topology.into()).await.expect("topics");
        // As a dispatcher that was killed between publishing and acknowledging, also before the run itself was.
        for (sent, handled) in [&[0, 1, 0, 1][..], &[2, 0, 1]].into_iter().zip(handled) {
            let publish = |index: &usize| leatworks::broker::Publish {
                topic: topology.edges[0].topic.into(),
                message: roots[*index].clone().into(),
                sequence: None,
            };
            broker.publish(sent.iter().map(publish).collect()).await.expect("published");
            let (stop, stopped) = watch::channel(Stop::Run);
            let options = RunOptions { serve: true, elsewhere, ..RunOptions::default() };
            let plan = leatworks::plan::Plan::new(topology, std::env::temp_dir());
            let counts = std::sync::Arc::new(leatworks::Counts::new(topology));
            let running = tokio::spawn(leatworks::run::run(broker.clone(), plan, options, counts, stopped));
            stop.send(Stop::Drain).expect("the run listens");
            let report = running.await.expect("no panic").expect("it ends");
            assert_eq!((report.tasks["sum"].handled, report.in_flight), (handled, 0), "elsewhere: {elsewhere}");
        }
    }
}
