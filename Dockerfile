# docker build -t gato-gym . && docker run --rm gato-gym
# The report: docker run --rm -v "$PWD/results:/gato-gym/results" gato-gym
FROM python:3.11-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make libegl1 libgl1-mesa-dri \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /gato-gym
COPY . .
RUN make .venv/demo.stamp
CMD ["make", "demo"]
