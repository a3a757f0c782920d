FROM busybox AS first
ARG ARGUMENT=default
ARG FROM_ENVIRONMENT
RUN echo $ARGUMENT $FROM_ENVIRONMENT > /argument
FROM busybox AS second
COPY --from=first /argument /argument
ENV STAGE=second
FROM busybox AS third
RUN exit 1
