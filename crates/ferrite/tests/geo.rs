//! Geo commands: digits that are known, and searches on disk.

mod common;

use common::Server;

#[test]
fn distances_are_stored_with_all_their_digits() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.command(&[
        "GEOADD",
        "Sicily",
        "13.361389",
        "38.115556",
        "Palermo",
        "15.087269",
        "37.502669",
        "Catania",
        "17.241510",
        "38.788135",
        "edge2",
    ]);
    let found = client.command(&[
        "GEOSEARCHSTORE",
        "found",
        "Sicily",
        "FROMLONLAT",
        "15",
        "37",
        "BYBOX",
        "400",
        "400",
        "km",
        "STOREDIST",
    ]);
    assert_eq!(found, ":3\r\n");
    let scores = client.command(&["ZRANGE", "found", "0", "-1", "WITHSCORES"]);
    let words: Vec<_> = scores
        .lines()
        .filter(|line| !line.starts_with(['*', '$']))
        .collect();
    assert_eq!(
        words,
        [
            "Catania",
            "56.4412578701582",
            "Palermo",
            "190.44242984775784",
            "edge2",
            "279.7403417843143",
        ]
    );
}

/// A search reads what lies around the area, and not the other places.
#[test]
fn a_search_on_disk_reads_the_cells_around_the_area_only() {
    let directives = ["--maxmemory", "64mb", "--enable-debug-command", "yes"];
    let server = Server::start(&directives);
    let mut client = server.connect();
    for row in 0..100 {
        let latitude = format!("{}", f64::from(row) * 1.6 - 80.0);
        let places: Vec<String> = (0..200)
            .flat_map(|column| {
                let longitude = format!("{}", f64::from(column) * 1.79 - 179.0);
                [longitude, latitude.clone(), format!("{row}:{column}")]
            })
            .collect();
        let mut words = vec!["GEOADD", "places"];
        words.extend(places.iter().map(String::as_str));
        assert_eq!(client.command(&words), ":200\r\n");
    }
    assert_eq!(client.command(&["DEBUG", "FORCE-COLD"]), "+OK\r\n");
    let cold_reads = |client: &mut common::Connection| -> u64 {
        let info = client.command(&["INFO", "tiers"]);
        let (_, rest) = info.split_once("\ncold_reads:").expect("a figure");
        rest.lines().next().unwrap().trim().parse().unwrap()
    };
    let before = cold_reads(&mut client);
    let search = [
        "GEOSEARCH",
        "places",
        "FROMLONLAT",
        "0",
        "0",
        "BYRADIUS",
        "60",
        "km",
        "ASC",
    ];
    assert_eq!(client.command(&search), "*1\r\n$6\r\n50:100\r\n");
    let read = cold_reads(&mut client) - before;
    assert!((1..60).contains(&read), "{read} cold reads");
}
