//! The geo handle against real files: every publisher's schema, layers, the cache, replaced and broken files.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod mmdb;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use mmdb::Field::{Bool, Double, Float, List, Map, Number, Text};
use mmdb::{Field, Tree, Writer, names};
use portcullis_geo::{Geo, GeoError, GeoStats, Settings};
use portcullis_model::{Location, UnixMs};
use tempfile::TempDir;

fn settings(databases: &[&Path]) -> Settings {
    Settings { databases: databases.iter().map(|path| (*path).to_owned()).collect(), ..Settings::default() }
}

fn write(folder: &TempDir, name: &str, database: &Writer) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, database.bytes()).unwrap();
    path
}

/// What a database with this one record says about an address inside and outside of its network.
fn location_in(kind: &'static str, tree: Tree, record: Field) -> Location {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "one.mmdb", &Writer::new(kind, tree).with("198.51.100.0/24", record));
    let geo = Geo::open(&settings(&[&path])).unwrap();
    assert!(lookup(&geo, "198.51.101.1").is_unknown());
    lookup(&geo, "198.51.100.77")
}

fn lookup(geo: &Geo, address: &str) -> Location {
    Location::clone(&geo.lookup(address.parse().unwrap()))
}

fn country(code: &'static str) -> Field {
    Map(vec![("country", Map(vec![("iso_code", Text(code))]))])
}

fn mountain_view() -> Location {
    Location {
        country: Some("US".into()),
        city: Some("Mountain View".into()),
        region: Some("California".into()),
        latitude: Some(37.4043),
        longitude: Some(-122.0748),
        asn: None,
        isp: None,
    }
}

fn google() -> Location {
    Location { asn: Some(15169), isp: Some("Google LLC".into()), ..Location::default() }
}

#[test]
fn maxmind_and_db_ip_city_records_are_understood() {
    let record = Map(vec![
        ("city", Map(vec![("geoname_id", Number(5375480)), ("names", names("Mountain View"))])),
        ("continent", Map(vec![("code", Text("NA")), ("names", names("North America"))])),
        (
            "country",
            Map(vec![
                ("is_in_european_union", Bool(false)),
                ("iso_code", Text("US")),
                ("names", names("United States")),
            ]),
        ),
        (
            "location",
            Map(vec![
                ("latitude", Double(37.4043)),
                ("longitude", Double(-122.0748)),
                ("time_zone", Text("x")),
            ]),
        ),
        ("registered_country", Map(vec![("iso_code", Text("CA"))])),
        (
            "subdivisions",
            List(vec![
                Map(vec![("iso_code", Text("CA")), ("names", names("California"))]),
                Map(vec![("names", names("a county"))]),
            ]),
        ),
    ]);
    assert_eq!(location_in("GeoLite2-City", Tree::V6, record), mountain_view());
}

#[test]
fn maxmind_isp_and_asn_records_are_understood() {
    let asn = || {
        vec![
            ("autonomous_system_number", Number(15169)),
            ("autonomous_system_organization", Text("Google LLC")),
        ]
    };
    assert_eq!(location_in("GeoLite2-ASN", Tree::V6, Map(asn())), google());
    let mut isp = asn();
    isp.extend([("isp", Text("Google Fiber")), ("organization", Text("Somebody"))]);
    assert_eq!(location_in("GeoIP2-ISP", Tree::V6, Map(isp)).isp.as_deref(), Some("Google Fiber"));
    let traits = Map(vec![("traits", Map(asn()))]);
    assert_eq!(location_in("GeoIP2-Enterprise", Tree::V6, traits), google());
}

#[test]
fn ipinfo_records_with_text_coordinates_are_understood() {
    let record = Map(vec![
        ("city", Text("Mountain View")),
        ("country", Text("US")),
        ("lat", Text("37.40430")),
        ("lng", Text("-122.07480")),
        ("postal_code", Text("94043")),
        ("region", Text("California")),
    ]);
    assert_eq!(location_in("ipinfo standard_location.mmdb", Tree::V6, record), mountain_view());
    let record = Map(vec![
        ("city", Text("Mountain View")),
        ("country", Text("US")),
        ("loc", Text("37.4043,-122.0748")),
        ("region", Text("California")),
    ]);
    assert_eq!(location_in("ipinfo location", Tree::V6, record), mountain_view());
}

#[test]
fn ipinfo_lite_gives_the_country_code_and_the_operator() {
    let record = Map(vec![
        ("as_domain", Text("google.com")),
        ("as_name", Text("Google LLC")),
        ("asn", Text("AS15169")),
        ("continent", Text("North America")),
        ("country", Text("United States")),
        ("country_code", Text("US")),
    ]);
    let found = location_in("ipinfo generic_country_asn_lite.mmdb", Tree::V6, record);
    assert_eq!(found, Location { country: Some("US".into()), ..google() });
}

#[test]
fn ip_location_db_records_are_understood() {
    let record = Map(vec![
        ("city", Text("Mountain View")),
        ("country_code", Text("US")),
        ("latitude", Float(37.4043)),
        ("longitude", Float(-122.0748)),
        ("postcode", Text("")),
        ("state1", Text("California")),
        ("state2", Text("Santa Clara")),
        ("timezone", Text("")),
    ]);
    assert_eq!(location_in("dbip-city", Tree::V4, record), mountain_view());
    let record = Map(vec![
        ("autonomous_system_number", Number(15169)),
        ("autonomous_system_organization", Text("Google LLC")),
    ]);
    assert_eq!(location_in("asn", Tree::V4, record), google());
}

#[test]
fn the_first_layer_that_knows_a_field_wins() {
    let folder = TempDir::new().unwrap();
    let first = Writer::new("GeoLite2-Country", Tree::V6).with("198.51.100.0/24", country("DE"));
    let second = Writer::new("ipinfo", Tree::V6)
        .with(
            "198.51.100.0/25",
            Map(vec![("country", Text("FR")), ("asn", Text("AS64496")), ("as_name", Text("Example"))]),
        )
        .with("2001:db8::/32", Map(vec![("country", Text("JP"))]));
    let (first, second) = (write(&folder, "a.mmdb", &first), write(&folder, "b.mmdb", &second));
    let geo = Geo::open(&settings(&[&first, &second])).unwrap();

    let both = lookup(&geo, "198.51.100.1");
    assert_eq!((both.country.as_deref(), both.asn), (Some("DE"), Some(64496)));
    assert_eq!(lookup(&geo, "198.51.100.200").isp, None);
    assert_eq!(lookup(&geo, "2001:db8:9::1").country.as_deref(), Some("JP"));

    let geo = Geo::open(&settings(&[&second, &first])).unwrap();
    assert_eq!(lookup(&geo, "198.51.100.1").country.as_deref(), Some("FR"));
}

#[test]
fn an_ipv4_file_knows_nothing_about_ipv6_and_does_not_fail() {
    let folder = TempDir::new().unwrap();
    let path =
        write(&folder, "v4.mmdb", &Writer::new("country", Tree::V4).with("198.51.100.0/24", country("DE")));
    let geo = Geo::open(&settings(&[&path])).unwrap();
    assert!(lookup(&geo, "2001:db8::1").is_unknown());
    assert_eq!(lookup(&geo, "::ffff:198.51.100.1").country.as_deref(), Some("DE"));
}

#[test]
fn private_addresses_are_unknown_even_if_a_file_names_them() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "lan.mmdb", &Writer::new("country", Tree::V6).with("0.0.0.0/1", country("DE")));
    let geo = Geo::open(&settings(&[&path])).unwrap();
    for private in ["10.1.2.3", "127.0.0.1", "::1"] {
        assert!(lookup(&geo, private).is_unknown(), "{private}");
    }
    assert_eq!(lookup(&geo, "11.1.2.3").country.as_deref(), Some("DE"));
}

#[test]
fn each_lookup_is_counted_once() {
    let folder = TempDir::new().unwrap();
    let path =
        write(&folder, "c.mmdb", &Writer::new("country", Tree::V6).with("198.51.100.0/24", country("DE")));
    let geo = Geo::open(&settings(&[&path])).unwrap();
    for address in ["198.51.100.1", "198.51.100.1", "198.51.100.2", "203.0.113.1", "203.0.113.1", "10.0.0.1"]
    {
        lookup(&geo, address);
    }
    assert_eq!(geo.clone().stats(), GeoStats { hits: 1, misses: 2, unknown: 3 });
}

#[test]
fn an_answer_that_outlived_its_time_is_looked_up_again() {
    let folder = TempDir::new().unwrap();
    let path =
        write(&folder, "c.mmdb", &Writer::new("country", Tree::V6).with("198.51.100.0/24", country("DE")));
    let geo = Geo::open(&Settings { cache_ttl: Duration::from_millis(1), ..settings(&[&path]) }).unwrap();
    lookup(&geo, "198.51.100.1");
    thread::sleep(Duration::from_millis(50));
    lookup(&geo, "198.51.100.1");
    assert_eq!(geo.stats(), GeoStats { hits: 0, misses: 2, unknown: 0 });
}

#[test]
fn without_databases_everything_works_and_says_no_location() {
    for geo in [Geo::none(), Geo::open(&Settings::default()).unwrap()] {
        assert!(lookup(&geo, "198.51.100.1").is_unknown());
        assert!(geo.status().is_empty());
        assert!(!geo.reload_if_changed().unwrap());
    }
}

#[test]
fn the_status_names_type_and_age_of_each_file() {
    let folder = TempDir::new().unwrap();
    let database = Writer::new("GeoLite2-Country", Tree::V6).with("198.51.100.0/24", country("DE"));
    let path = write(&folder, "c.mmdb", &database);
    let geo = Geo::open(&settings(&[&path])).unwrap();
    let [status] = &geo.status()[..] else { panic!("one file, one status") };
    assert_eq!((&status.path, status.kind.as_str()), (&path, "GeoLite2-Country"));
    assert_eq!((status.built, status.ip_version), (UnixMs(1_790_000_000_000), 6));
    assert_eq!((status.nodes, status.bytes), (120, fs::metadata(&path).unwrap().len()));
    assert_eq!(status.rejected, None);
}

#[test]
fn a_file_that_is_missing_at_the_start_is_an_error_that_names_it() {
    let error = Geo::open(&settings(&[Path::new("/nowhere/city.mmdb")])).unwrap_err();
    assert!(matches!(error, GeoError::Missing { .. }));
    assert!(error.to_string().contains("/nowhere/city.mmdb"), "{error}");

    let folder = TempDir::new().unwrap();
    let error = Geo::open(&settings(&[folder.path()])).unwrap_err();
    assert!(matches!(error, GeoError::NotAFile { .. }), "{error}");
}

#[test]
fn a_file_without_any_known_field_is_refused() {
    let folder = TempDir::new().unwrap();
    let record = Map(vec![("connection_type", Text("Cable/DSL"))]);
    let database = Writer::new("GeoIP2-Connection-Type", Tree::V6).with("198.51.100.0/24", record);
    let error = Geo::open(&settings(&[&write(&folder, "x.mmdb", &database)])).unwrap_err();
    assert!(matches!(error, GeoError::UnknownSchema { .. }), "{error}");
    assert!(error.to_string().contains("GeoIP2-Connection-Type"), "{error}");
}

#[test]
fn more_files_than_supported_are_refused() {
    let path = PathBuf::from("city.mmdb");
    let error = Geo::open(&settings(&vec![path.as_path(); 17])).unwrap_err();
    assert!(matches!(error, GeoError::TooManyDatabases { given: 17, max: 16 }), "{error}");
}

#[test]
fn no_truncation_and_no_garbage_opens_or_panics() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bad.mmdb");
    let whole = Writer::new("country", Tree::V4).with("198.51.100.0/24", country("DE")).bytes();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = Geo::open(&settings(&[&path])).unwrap_err();
        assert!(matches!(error, GeoError::Corrupt { .. }), "{length} bytes: {error}");
        assert!(error.to_string().contains("bad.mmdb"), "{error}");
    }
    fs::write(&path, b"<html>404 Not Found</html>".repeat(1_000)).unwrap();
    assert!(matches!(Geo::open(&settings(&[&path])), Err(GeoError::Corrupt { .. })));
}

#[test]
fn no_flipped_byte_makes_a_lookup_panic() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bad.mmdb");
    let whole = Writer::new("country", Tree::V4).with("198.51.100.0/24", country("DE")).bytes();
    let mut refused = 0;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        fs::write(&path, &bytes).unwrap();
        match Geo::open(&settings(&[&path])) {
            Ok(geo) => {
                lookup(&geo, "198.51.100.1");
                lookup(&geo, "203.0.113.1");
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0, "damage in the tree or the metadata must be found");
}

/// A gateway's handle on one file that says DE, and the file's path.
fn german() -> (TempDir, PathBuf, Geo) {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "c.mmdb", &says("DE"));
    let geo = Geo::open(&settings(&[&path])).unwrap();
    assert_eq!(lookup(&geo, "198.51.100.1").country.as_deref(), Some("DE"));
    assert!(!geo.reload_if_changed().unwrap());
    (folder, path, geo)
}

/// The file that takes its place says FR. It has another size, because two writes within one tick of
/// the file system's clock are told apart only by that.
fn french() -> Writer {
    says("FR").with("203.0.113.0/24", country("FR"))
}

fn says(code: &'static str) -> Writer {
    Writer::new("country", Tree::V6).with("198.51.100.0/24", country(code))
}

#[test]
fn a_file_replaced_by_rename_is_in_force_at_the_next_check_despite_the_cache() {
    let (folder, path, geo) = german();
    let new = write(&folder, "new.mmdb", &french());
    fs::rename(new, &path).unwrap();
    assert_eq!(lookup(&geo, "198.51.100.1").country.as_deref(), Some("DE"));
    assert!(geo.reload_if_changed().unwrap());
    assert_eq!(lookup(&geo, "198.51.100.1").country.as_deref(), Some("FR"));
    assert!(!geo.reload_if_changed().unwrap());
}

#[test]
fn a_file_overwritten_in_place_is_in_force_at_the_next_check() {
    let (_folder, path, geo) = german();
    fs::write(&path, french().bytes()).unwrap();
    assert!(geo.reload_if_changed().unwrap());
    assert_eq!(lookup(&geo, "198.51.100.1").country.as_deref(), Some("FR"));
}

#[test]
fn a_truncated_file_keeps_the_last_good_one_and_is_reported_once() {
    let (_folder, path, geo) = german();
    let whole = french().bytes();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();

    let error = geo.reload_if_changed().unwrap_err();
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert!(!geo.reload_if_changed().unwrap(), "the same bad file is not reported again");
    assert_eq!(lookup(&geo, "198.51.100.1").country.as_deref(), Some("DE"));
    assert_eq!(lookup(&geo, "198.51.100.2").country.as_deref(), Some("DE"), "not from the cache");
    assert!(geo.status()[0].rejected.as_ref().is_some_and(|why| why.contains("corrupt")));

    fs::write(&path, &whole).unwrap();
    assert!(geo.reload_if_changed().unwrap());
    assert_eq!(lookup(&geo, "198.51.100.1").country.as_deref(), Some("FR"));
    assert_eq!(geo.status()[0].rejected, None);
}

#[test]
fn a_deleted_file_keeps_answering_and_its_return_is_noticed() {
    let (folder, path, geo) = german();
    let aside = folder.path().join("aside.mmdb");
    fs::rename(&path, &aside).unwrap();
    assert!(matches!(geo.reload_if_changed(), Err(GeoError::Missing { .. })));
    assert!(!geo.reload_if_changed().unwrap());
    assert_eq!(lookup(&geo, "198.51.100.2").country.as_deref(), Some("DE"));
    fs::write(&path, french().bytes()).unwrap();
    assert!(geo.reload_if_changed().unwrap());
    assert_eq!(lookup(&geo, "198.51.100.2").country.as_deref(), Some("FR"));
}

#[test]
fn one_bad_file_does_not_keep_another_from_being_replaced() {
    let folder = TempDir::new().unwrap();
    let good = write(&folder, "a.mmdb", &says("DE"));
    let bad = write(&folder, "b.mmdb", &says("FR"));
    let worse = write(&folder, "c.mmdb", &says("IT"));
    let geo = Geo::open(&settings(&[&bad, &good, &worse])).unwrap();
    fs::write(&bad, "garbage").unwrap();
    fs::write(&worse, "garbage").unwrap();
    fs::write(&good, says("DE").with("203.0.113.0/24", country("JP")).bytes()).unwrap();

    let mut reported = Vec::new();
    for _ in 0..4 {
        if let Err(error) = geo.reload_if_changed() {
            reported.push(error.to_string());
        }
    }
    assert_eq!(reported.len(), 2, "{reported:?}");
    assert!(reported[0].contains("b.mmdb") && reported[1].contains("c.mmdb"), "{reported:?}");
    assert_eq!(lookup(&geo, "203.0.113.1").country.as_deref(), Some("JP"));
    assert_eq!(lookup(&geo, "198.51.100.1").country.as_deref(), Some("FR"));
}

#[test]
fn a_file_that_is_half_overwritten_never_comes_into_force() {
    let (_folder, path, geo) = german();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..30 {
                let next = if n % 2 == 0 { says("DE") } else { french() };
                let mut file = File::create(&path).unwrap();
                for chunk in next.bytes().chunks(64) {
                    file.write_all(chunk).unwrap();
                    thread::yield_now();
                }
            }
        });
        while !writer.is_finished() {
            if let Err(error) = geo.reload_if_changed() {
                assert!(matches!(error, GeoError::Corrupt { .. }), "{error}");
            }
            let found = lookup(&geo, "198.51.100.1").country;
            assert!(matches!(found.as_deref(), Some("DE" | "FR")), "{found:?}");
        }
    });
    // `Ok(false)` when the last state had been taken into force already.
    geo.reload_if_changed().unwrap();
    assert_eq!(lookup(&geo, "203.0.113.1").country.as_deref(), Some("FR"));
}

#[test]
fn lookups_go_on_while_files_are_replaced() {
    let (_folder, path, geo) = german();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for n in 0..20_000_u32 {
                    let address = format!("198.51.100.{}", n % 256);
                    let found = lookup(&geo, &address).country;
                    assert!(matches!(found.as_deref(), Some("DE" | "FR")), "{found:?}");
                }
            });
        }
        for n in 0..20 {
            let next = if n % 2 == 0 { french() } else { says("DE") };
            fs::write(&path, next.bytes()).unwrap();
            geo.reload_if_changed().unwrap();
        }
    });
    assert_eq!(lookup(&geo, "198.51.100.1").country.as_deref(), Some("DE"));
}
