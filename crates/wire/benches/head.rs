//! What reading a request head costs: `cargo bench -p portcullis-wire`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use portcullis_wire::{HeadLimits, check_path, scan};

const LIMITS: HeadLimits =
    HeadLimits { max_bytes: 32 * 1024, max_headers: 100, max_target: 8 * 1024, escaped_slashes: false };

/// What a browser sends to open a page: 15 header lines.
const BROWSER: &[u8] = b"GET /shop/articles/2041?sort=price&page=2 HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-User: ?1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Referer: https://www.example.com/shop/articles\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=9f2c41d0a6b34c8e8f1e7c0b6a5d4e3f; theme=dark\r\n\
    X-Requested-With: XMLHttpRequest\r\n\r\n";

const SMALL: &[u8] = b"GET /health HTTP/1.1\r\nHost: a\r\nUser-Agent: probe/1.0\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    for (name, head) in [("browser, 15 lines", BROWSER), ("probe, 2 lines", SMALL)] {
        assert!(matches!(scan(head, 0, &LIMITS), Ok(Some(_))), "{name}");
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| scan(black_box(head), 0, &LIMITS)));
    }
    group.throughput(Throughput::Bytes(BROWSER.len() as u64));
    group.bench_function("browser, byte by byte", |bencher| {
        bencher.iter(|| {
            for len in 1..=BROWSER.len() {
                let _ = black_box(scan(black_box(&BROWSER[..len]), len - 1, &LIMITS));
            }
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("check_path");
    for (name, path) in [("plain", &b"/shop/articles/2041"[..]), ("with escapes", b"/caf%C3%A9/a%20b")] {
        group.bench_function(name, |bencher| bencher.iter(|| check_path(black_box(path), false)));
    }
    group.finish();
}

criterion_group!(benches, heads);
criterion_main!(benches);
