# syntax=docker/dockerfile:1

# Portcullis in a container: one binary, run by a user without privileges.
#
#   docker build -t portcullis .
#   docker run -p 8080:8080 -v portcullis-data:/data portcullis run --upstream http://app:3000 --data /data
#
# or with a configuration file:
#
#   docker run -p 8080:8080 -v ./portcullis.toml:/etc/portcullis/portcullis.toml:ro \
#       -v portcullis-data:/data portcullis

FROM rust:1.95-slim-trixie AS build
# A C compiler for SQLite, mimalloc and ring; cmake and make for the zlib that Pingora links.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake gcc libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches outlive the build, so a change of our own code does not compile the dependencies again.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package portcullis \
    && install -D target/release/portcullis /out/usr/local/bin/portcullis \
    && install -D --mode=644 --target-directory=/out/usr/share/licenses/portcullis LICENSE LICENSE-APACHE LICENSE-MIT \
    && install -d /out/etc/portcullis

FROM debian:trixie-slim
# The roots that upstreams over TLS are verified with.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin portcullis \
    && install -d --owner=portcullis --group=portcullis --mode=700 /data
COPY --from=build /out /

USER portcullis
# portcullis.toml is looked for in the working directory.
WORKDIR /etc/portcullis
VOLUME /data
EXPOSE 8080
# SIGTERM lets requests under way finish and flushes the log.
STOPSIGNAL SIGTERM
# Asks /readyz on the metrics listener, inside of the container.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["portcullis", "health"]
ENTRYPOINT ["portcullis"]
CMD ["run", "--data", "/data"]
