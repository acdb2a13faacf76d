# docker build --tag pgusher .
# docker run --read-only --cap-drop ALL --security-opt no-new-privileges --stop-timeout 40 --volume /etc/pgusher:/etc/pgusher:ro --volume pgusher-audit:/var/log/pgusher --publish 6432:6432 pgusher

# For a build that gives the same image each time: --build-arg NODE_IMAGE=node:24-bookworm-slim@sha256:…
ARG NODE_IMAGE=node:24-bookworm-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /build
COPY package.json package-lock.json ./
# The packages with install scripts bring a Node and a PostgreSQL for the tests of a development machine; nothing here needs them.
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY src src
RUN npm run build && chmod 0755 dist/cli/main.js

FROM ${NODE_IMAGE} AS dependencies
WORKDIR /build
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund

FROM ${NODE_IMAGE}
# V8's young generation: a burst of connections doubles it up to 128 MB, and it never shrinks; 32 MB cost no CPU more (docs/performance.md).
ENV NODE_ENV=production NODE_OPTIONS=--max-semi-space-size=16
WORKDIR /opt/pgusher
COPY --from=dependencies /build/node_modules node_modules
COPY --from=build /build/dist dist
COPY package.json LICENSE ./
COPY config config
# Code belongs to root and is only read; the audit log is the one place that the process writes to, and a volume, so that the root file
# system may be read-only. Ports from 1024 on need no capability. For control.socket in /run/pgusher: --tmpfs /run/pgusher:uid=1000,mode=0755
RUN ln -s /opt/pgusher/dist/cli/main.js /usr/local/bin/pgusher && install -d -o node -g node -m 0750 /var/log/pgusher
VOLUME /var/log/pgusher
USER node
EXPOSE 6432
# Drains on SIGTERM: give it longer than drain_timeout before SIGKILL.
STOPSIGNAL SIGTERM
# The HTTP listener of the configuration (http.address); set the variable where it is another.
ENV PGUSHER_LIVEZ=http://127.0.0.1:6433/livez
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["node", "-e", "fetch(process.env.PGUSHER_LIVEZ).then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["pgusher"]
CMD ["serve", "--config", "/etc/pgusher/pgusher.yaml"]
