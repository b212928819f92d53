//! How a container is ended, and that nothing is left of it. The house checks that when it goes.

use crate::house::*;
use proto::step::RunOp;
use std::sync::mpsc::channel;
use std::time::Duration;
use worker::sandbox::{Io, Limits, Order, Outcome, Running};

/// Programs that do not want to end, at several levels, one of them in a session of its own.
const STUBBORN: &str = "trap '' TERM INT HUP; sleep 1000 & (sleep 1000 & sleep 1000) & \
                        nohup sh -c 'sleep 1000' > /dev/null 2>&1 & echo up; wait; sleep 1000";

/// Starts it, and waits until it has said something.
fn start(house: &House, order: Order<'_>) -> Running {
    let (told, heard) = channel();
    let io = Io::Log(Box::new(move |_, _: &[u8]| {
        let _ = told.send(());
    }));
    let mut running = house.sandbox.prepare(order).unwrap().start(io).unwrap();
    assert!(running.process().is_some());
    // Its words are taken while somebody waits for it: in the thread that the caller has for it.
    drop(heard);
    running
}

#[test]
fn cancelling_kills_all_of_it() {
    let house = house();
    let op = op(STUBBORN);
    assert_eq!(house.cancel(&op), Outcome::Cancelled);
    assert_eq!(house.sh("echo next"), "next");
}

#[test]
fn cancelled_before_it_began() {
    let house = house();
    let op = op("sleep 1000");
    let running = house.sandbox.prepare(order(&op, &house.base)).unwrap();
    let running = running.start(Io::Log(Box::new(|_, _| {}))).unwrap();
    running.canceller().cancel();
    assert_eq!(running.wait().unwrap().outcome(), Outcome::Cancelled);
}

#[test]
fn time_is_up() {
    let house = house();
    let op = op(STUBBORN);
    let timeout = Duration::from_millis(300);
    let order = Order { timeout: Some(timeout), ..order(&op, &house.base) };
    let ran = house.try_order(order).unwrap();
    assert_eq!(ran.outcome, Outcome::TimedOut(timeout));
    assert!(ran.exited.took() >= timeout);
    let in_time =
        Order { timeout: Some(Duration::from_secs(600)), ..self::order(&op, &house.base) };
    let quick = RunOp { args: ["/bin/true".to_owned()].into(), ..op.clone() };
    let ran = house.try_order(Order { op: &quick, ..in_time }).unwrap();
    assert_eq!(ran.outcome, Outcome::Exited(0));
}

#[test]
fn dropped_at_any_time() {
    let house = house();
    let op = op(STUBBORN);
    drop(house.sandbox.prepare(order(&op, &house.base)).unwrap());
    drop(start(&house, order(&op, &house.base)));
    let ran = house.run(&self::op("echo x > /x"));
    drop(ran.exited);
    let ran = house.run(&self::op("echo x > /x"));
    drop(ran.exited.capture().unwrap());
    assert!(work_directories(&house.path.join("layers")).is_empty());
}

/// Fills memory: awk doubles a text until it is stopped.
const GREEDY: &str = "awk 'BEGIN { s = \"x\"; while (1) s = s s }'";

#[test]
fn memory_is_limited() {
    let house = house();
    let limits = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
    let op = op(GREEDY);
    let ran = house.try_order(Order { limits, ..order(&op, &house.base) }).unwrap();
    assert_eq!(ran.outcome, Outcome::OutOfMemory, "{}{}", ran.out, ran.err);
    assert!(ran.exited.usage().memory_peak_bytes > 32 << 20);
    drop(ran);
    // The same cell runs on with another limit.
    let roomy = self::op("dd if=/dev/zero of=/dev/null bs=128M count=1 2> /dev/null && echo fits");
    let ran = house.run(&roomy);
    assert_eq!(ran.out, "fits\n");
}

#[test]
fn processes_are_limited() {
    let house = house();
    let limits = Limits { pids: Some(20), ..Limits::default() };
    let op = op("for n in $(seq 100); do sleep 1000 & done; echo not reached");
    let ran = house.try_order(Order { limits, ..order(&op, &house.base) }).unwrap();
    assert_ne!(ran.outcome, Outcome::Exited(0));
    assert!(ran.err.contains("fork"), "{}", ran.err);
    assert!(!ran.out.contains("not reached"));
}

#[test]
fn what_it_used_is_counted() {
    let house = house();
    let ran = house.run(&op("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"));
    assert!(ran.exited.usage().cpu > Duration::from_millis(10), "{:?}", ran.exited.usage());
    let idle = house.run(&op("true"));
    assert!(idle.exited.usage().cpu < ran.exited.usage().cpu);
}
