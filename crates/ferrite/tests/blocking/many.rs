//! Many who wait at once, on all workers.

use std::collections::BTreeSet;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use crate::common::{Connection, Server, check, encode, eventually};
use crate::{WORKERS, wait_for_blocked};

#[test]
fn clients_of_several_workers_are_served_in_the_order_in_which_they_came() {
    let server = Server::start(&WORKERS);
    let mut control = server.connect();
    let mut clients: Vec<Connection> = (0..40).map(|_| server.connect()).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(encode(&["BLPOP", "none", "k", "0"]));
            wait_for_blocked(&mut control, number + 1);
        }
        match round {
            0 => {
                let numbers: Vec<String> = (0..40).map(|number| number.to_string()).collect();
                let mut words = vec!["RPUSH", "k"];
                words.extend(numbers.iter().map(String::as_str));
                control.command(&words);
            }
            _ => {
                for number in 0..40 {
                    check(&mut control, &format!("RPUSH k {number}"), ":1");
                }
            }
        }
        check(&mut control, "EXISTS k", ":0");
        for (number, client) in clients.iter_mut().enumerate() {
            let shown = number.to_string();
            let expected = format!("*2\r\n$1\r\nk\r\n${}\r\n{shown}\r\n", shown.len());
            assert_eq!(client.reply(), expected, "round {round}");
        }
        wait_for_blocked(&mut control, 0);
    }
}

/// Many push and many wait, on keys that they share: each element is told to one of them, and none is left.
#[test]
fn every_element_is_delivered_once() {
    const CLIENTS: usize = 12;
    const PUSHERS: usize = 4;
    const EACH: usize = 1500;
    let server = Server::start(&WORKERS);
    let keys = ["a", "b", "c"];
    let taken: Vec<String> = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let mut client = server.connect();
                scope.spawn(move || {
                    let mut taken = Vec::new();
                    loop {
                        let reply = match number % 4 {
                            0 => client.command(&["BLPOP", "a", "b", "c", "0"]),
                            1 => client.command(&["BRPOP", "c", "a", "0"]),
                            2 => client.command(&["BLMOVE", "b", "moved", "LEFT", "RIGHT", "0"]),
                            _ => client.command(&["BLPOP", "moved", "c", "0.05"]),
                        };
                        let last = reply.trim_end().rsplit("\r\n").next().unwrap().to_owned();
                        match last.as_str() {
                            "end" => return taken,
                            "*-1" => {}
                            _ if number % 4 == 2 => {}
                            _ => taken.push(last),
                        }
                    }
                })
            })
            .collect();
        let pushers: Vec<_> = (0..PUSHERS)
            .map(|number| {
                let mut client = server.connect();
                scope.spawn(move || {
                    for i in 0..EACH {
                        let element = format!("{number}-{i}");
                        let key = keys[(number + i) % keys.len()];
                        if i % 7 == 0 {
                            client.send(encode(&["MULTI"]));
                            client.send(encode(&["RPUSH", key, &element]));
                            client.send(encode(&["EXEC"]));
                            (0..3).for_each(|_| drop(client.reply()));
                        } else {
                            client.command(&["RPUSH", key, &element]);
                        }
                    }
                })
            })
            .collect();
        pushers
            .into_iter()
            .for_each(|pusher| pusher.join().unwrap());
        // All that has been pushed is taken before the ends are.
        let mut control = server.connect();
        eventually(|| {
            let left = control.command(&["EXISTS", "a", "b", "c", "moved"]);
            (left == ":0\r\n").then_some(())
        });
        // Each end is the end of the one that gets it, whichever that is.
        let mut taken = Vec::new();
        let mut left: Vec<_> = takers.into_iter().collect();
        while !left.is_empty() {
            for key in ["a", "b", "c", "moved"] {
                check_push(&mut control, key);
            }
            std::thread::yield_now();
            let (ended, others): (Vec<_>, Vec<_>) =
                left.into_iter().partition(ScopedJoinHandle::is_finished);
            for taker in ended {
                taken.extend(taker.join().unwrap());
            }
            left = others;
        }
        taken
    });
    assert_eq!(taken.len(), PUSHERS * EACH);
    let once: BTreeSet<_> = taken.iter().collect();
    assert_eq!(once.len(), taken.len(), "something was delivered twice");
}

fn check_push(control: &mut Connection, key: &str) {
    let reply = control.command(&["RPUSH", key, "end"]);
    assert!(reply.starts_with(':'), "{reply}");
}

#[test]
fn thousands_of_waiting_clients_cost_nothing() {
    let server = Server::start(&WORKERS);
    let mut control = server.connect();
    let mut clients = Vec::new();
    for _ in 0..500 {
        let mut client = server.connect();
        client.send(encode(&["BLPOP", "k", "1000"]));
        if clients.is_empty() {
            wait_for_blocked(&mut control, 1);
        }
        clients.push(client);
    }
    wait_for_blocked(&mut control, 500);
    // The last one is counted before its flag is set.
    eventually(|| {
        let list = control.command(&["CLIENT", "LIST"]);
        (list.matches(" flags=b ").count() == 500).then_some(())
    });
    let info = control.command(&["INFO", "clients"]);
    assert!(info.contains("total_blocking_keys:1\r\n"), "{info}");
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let (before, started) = (ticks(), Instant::now());
    eventually(|| (started.elapsed() > Duration::from_millis(500)).then_some(()));
    let (used, elapsed) = (ticks() - before, started.elapsed());
    assert!(
        Duration::from_millis(10 * used) <= elapsed / 3,
        "{used} hundredths of a second of processor time in {elapsed:?}"
    );
    // Those who leave are forgotten.
    clients.truncate(100);
    wait_for_blocked(&mut control, 100);
    check(&mut control, "RPUSH k x", ":1");
    check(&mut control, "EXISTS k", ":0");
    server.signal("TERM");
    for client in &mut clients[1..] {
        assert_eq!(client.read_to_end(), "");
    }
}
