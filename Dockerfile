# Shipmate's image; docs/docker.md says how it is built and run. A test carries these steps out without Docker.
ARG NODE_VERSION=24.21.0

FROM node:${NODE_VERSION}-bookworm-slim AS build
WORKDIR /usr/lib/shipmate
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund
COPY scripts/prune-modules /tmp/
RUN /tmp/prune-modules node_modules && rm package-lock.json
COPY bin bin
COPY src src
COPY scripts/healthcheck.ts scripts/

FROM node:${NODE_VERSION}-bookworm-slim
LABEL org.opencontainers.image.title="Shipmate" \
      org.opencontainers.image.description="Ships a database's incremental log to object storage, from two hosts at once." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /usr/lib/shipmate /usr/lib/shipmate
# What is mounted at its state directory as a new volume belongs to its user.
RUN ln -s /usr/lib/shipmate/bin/shipmate /usr/local/bin/shipmate \
 && install -d -o 65532 -g 65532 -m 700 /var/lib/shipmate
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
WORKDIR /
EXPOSE 9187
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
  CMD ["node", "/usr/lib/shipmate/scripts/healthcheck.ts"]
ENTRYPOINT ["shipmate"]
CMD ["run", "--init"]
