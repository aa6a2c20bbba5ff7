# One container with the server and its embedded Redis. SLOTWHEEL_REDIS_URL selects another Redis.
#
#   docker build -t slotwheel .
#   docker run --read-only --stop-timeout 30 -v slotwheel:/data -p 127.0.0.1:8080:8080 slotwheel

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock config.default.toml openapi.yaml ./
COPY assets assets
COPY src src
COPY benches benches
COPY tests tests
RUN cargo build --release --locked --bin slotwheel \
 && strip --strip-debug target/release/slotwheel

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends redis-server ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o 10001 -g 10001 -m 0700 /data
COPY --from=build /src/target/release/slotwheel /usr/local/bin/slotwheel
# The container listens on all of its addresses. Access is controlled by where its port is published.
ENV SLOTWHEEL_LISTEN=0.0.0.0:8080 \
    SLOTWHEEL_INSECURE=true \
    SLOTWHEEL_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s CMD ["slotwheel", "healthcheck"]
ENTRYPOINT ["slotwheel"]
CMD ["serve"]
