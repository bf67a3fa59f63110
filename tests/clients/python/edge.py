"""Watches an edge of a topology on Pulsar: `edge.py TOPIC COUNT` with PULSAR_URL.

Prints `ready` when it is subscribed, and then each message as the JSON that it is, one a line.
"""

import json
import os
import sys

import pulsar
from pulsar import InitialPosition

# How long a message that must come may take.
COMES_MS = 60_000

topic, count = sys.argv[1], int(sys.argv[2])
quiet = pulsar.FileLogger(pulsar.LoggerLevel.Warn, os.environ.get("CLIENT_LOG", os.devnull))
client = pulsar.Client(os.environ["PULSAR_URL"], operation_timeout_seconds=20, logger=quiet)
consumer = client.subscribe(topic, "watch", initial_position=InitialPosition.Latest)
print("ready", flush=True)
for _ in range(count):
    message = consumer.receive(timeout_millis=COMES_MS)
    print(json.dumps(json.loads(message.data())), flush=True)
    consumer.acknowledge(message)
client.close()
