//! R9: the network between the client and a Pulsar service fails in every way that a proxy can play. The process with the dispatchers lives on.

use super::{Finding, Setting, far, log, proxy::Proxy, proxy::Weather, random::Random, rig::Running, service};
use anyhow::Result;
use std::time::Duration;
use tokio::time::Instant;

/// How often resets, cuts and half-open connections come while their time lasts.
const AGAIN: Duration = Duration::from_millis(400);

/// The client notices a silent connection after twice its keep-alive of 5 s; then work must go on within another 5 s.
const RESUME_MAX: Duration = Duration::from_secs(15);

/// A fault, and how long it lasts.
type Fault = (Weather, Duration);

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let mut random = Random::new(setting.seed, "R9");
    let (faults, roots) = setting.pick((each_once(), 3_000), (many(&mut random), 200_000));
    let server = service::start()?;
    let proxy = Proxy::start(server.port).await?;
    let mut rig = service::rig(&setting.folder, &server, proxy.port)?;
    (rig.job.roots, rig.job.goes_on, rig.job.drain) = (roots, true, true);
    let mut finding = Finding::default();
    let (mut met, mut resumed) = (0, Vec::new());
    let mut in_flight = far::InFlight::new(&rig);
    let mut running = rig.start()?;
    running.until_open().await?;
    let count = faults.len() as u64;
    for (weather, time) in faults.into_iter().take_while(|_| !setting.is_over()) {
        let wanted = rig.acked() + random.within(0..2 * roots / (count + 1));
        if !running.until("progress", |rig| rig.acked() > wanted).await? {
            finding.objections.push(format!("the child ended by itself: {}", rig.last_words()));
            break;
        }
        met += u64::from(in_flight.count(&rig)? > 0);
        if !last(&proxy, weather, time, &mut running).await? {
            finding.objections.push(format!("the child ended during {weather:?}: {}", rig.last_words()));
            break;
        }
        let (fair, before) = (Instant::now(), rig.count(log::OBSERVED));
        if running.until("work after a fault", |rig| rig.count(log::OBSERVED) > before).await? {
            resumed.push((fair.elapsed(), weather));
        }
    }
    proxy.set(Weather::Fair);
    rig.enough()?;
    running.until_drained().await?;
    let verdict = rig.judge(count)?;
    resumed.sort_unstable_by_key(|(time, _)| *time);
    let late = resumed.get((resumed.len() * 99).div_ceil(100).saturating_sub(1)).map(|(time, _)| *time).unwrap_or_default();
    let worst = resumed.last().map(|(time, weather)| format!("{} ms after {weather:?}", time.as_millis())).unwrap_or_default();
    let processes = rig.openings()?;
    finding.seen = format!(
        "{} faults of the network between client and broker (blackhole, reset, half-open, cut within a frame, 1 byte a second, latency), {met} of them with \
         messages in flight; work went on {} ms after each (99th percentile; at most {worst}) in {processes} process; {}",
        resumed.len(),
        late.as_millis(),
        verdict.figures()
    );
    finding.objections.extend(verdict.objections());
    let came = resumed.len() as u64;
    finding.require(processes == 1, || format!("{processes} processes were needed"));
    finding.require(late <= RESUME_MAX || setting.pick(true, false), || format!("work went on after {late:?} only"));
    finding.require(came == count, || format!("work went on after {came} of {count} faults only"));
    finding.require(met * 10 >= came * 9, || format!("only {met} of {came} faults met messages in flight"));
    let enough = verdict.acked * 100 >= roots * 99;
    finding.require(enough, || format!("only {} of {roots} roots were acknowledged", verdict.acked));
    Ok(finding)
}

/// Every kind of fault. Silence lasts longer than the client takes to notice it, and once shorter.
fn each_once() -> Vec<Fault> {
    let seconds = |weather, seconds| (weather, Duration::from_secs(seconds));
    vec![
        seconds(Weather::Reset, 2),
        seconds(Weather::Cut, 2),
        seconds(Weather::Blackhole, 13),
        seconds(Weather::Latency(Duration::from_millis(1_000)), 6),
        seconds(Weather::HalfOpen, 1),
        seconds(Weather::Trickle, 13),
        seconds(Weather::Blackhole, 3),
    ]
}

/// Three hundred faults, silence up to a minute long.
fn many(random: &mut Random) -> Vec<Fault> {
    let mut fault = |number: u64| match number % 6 {
        0 => (Weather::Blackhole, Duration::from_millis(random.within(1_000..60_000))),
        1 => (Weather::Reset, Duration::from_millis(random.within(0..3_000))),
        2 => (Weather::HalfOpen, Duration::from_millis(random.within(0..3_000))),
        3 => (Weather::Cut, Duration::from_millis(random.within(0..3_000))),
        4 => (Weather::Trickle, Duration::from_millis(random.within(1_000..20_000))),
        _ => (Weather::Latency(Duration::from_millis(2_000)), Duration::from_millis(random.within(1_000..10_000))),
    };
    (0..300).map(&mut fault).collect()
}

/// Lets a fault last its time; `false` if the child has ended meanwhile.
async fn last(proxy: &Proxy, weather: Weather, time: Duration, running: &mut Running<'_>) -> Result<bool> {
    let began = Instant::now();
    let once = matches!(weather, Weather::Reset | Weather::Cut | Weather::HalfOpen);
    let mut ended = false;
    while !ended {
        proxy.set(weather);
        let left = time.saturating_sub(began.elapsed());
        // What happens to a connection once comes again to those that are new.
        let pause = if once { AGAIN.min(left) } else { left };
        if running.wait(pause).await?.is_some() {
            return Ok(false);
        }
        ended = began.elapsed() >= time;
    }
    proxy.set(Weather::Fair);
    Ok(true)
}
