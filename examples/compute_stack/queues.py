"""The service's side of AMQP: exchanges, queues, and what is sent to and from them."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from examples.compute_stack.service import Delivery, Service

PREFIX = "client-results."
RESULTS, HEARTBEATS = "results", "heartbeats"


class Queues:
    """Carries tasks, results and commands through a broker.

    Args:
        url: The broker's.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.Lock()  # a channel is for one thread at a time
        self._opened: set[str] = set()
        self._connection = self._connect()
        self._channel = self._connection.channel()
        for name in (RESULTS, HEARTBEATS):
            self._channel.exchange_declare(name, exchange_type="topic")
            self._channel.queue_declare(name)
            self._channel.queue_bind(name, name, f"*.{name}")

    def _connect(self) -> pika.BlockingConnection:
        parameters = pika.URLParameters(self.url)
        parameters.heartbeat = 0  # between requests nobody would answer one
        return pika.BlockingConnection(parameters)

    def open_endpoint(self, endpoint_id: str) -> dict[str, Any]:
        """Make the queue of an endpoint's tasks; return its credentials."""
        tasks = f"{endpoint_id}.tasks"
        self._open(tasks)
        return {
            "endpoint_id": endpoint_id,
            "task_queue_info": {"connection_url": self.url, "queue": tasks, "exchange": ""},
            "result_queue_info": self._publishing(endpoint_id, RESULTS),
            "heartbeat_queue_info": self._publishing(endpoint_id, HEARTBEATS),
        }

    def open_core(self, endpoint_id: str) -> dict[str, Any]:
        """Make the queue of a core endpoint's commands; return its credentials."""
        commands = f"{endpoint_id}.commands"
        self._open(commands)
        return {
            "endpoint_id": endpoint_id,
            "command_queue_info": {"connection_url": self.url, "queue": commands},
            "heartbeat_queue_info": self._publishing(endpoint_id, HEARTBEATS),
        }

    def open_group(self, group_id: str) -> None:
        """Make the queue of a task group's results."""
        self._open(PREFIX + group_id)

    def deliver(self, endpoint_id: str, delivery: Delivery) -> None:
        """Send a task to an endpoint."""
        self._publish(
            f"{endpoint_id}.tasks",
            delivery.body,
            pika.BasicProperties(headers=delivery.headers),
        )

    def command(self, endpoint_id: str, message: dict[str, Any]) -> None:
        """Send a command to a core endpoint."""
        properties = pika.BasicProperties(
            content_type="application/json", timestamp=int(time.time())
        )
        self._publish(f"{endpoint_id}.commands", json.dumps(message).encode(), properties)

    def forward(self, group_id: str, body: bytes) -> None:
        """Send a result to those who wait for a task group."""
        properties = pika.BasicProperties(timestamp=int(time.time()))
        self._publish(PREFIX + group_id, body, properties)

    def consume(self, service: Service) -> None:
        """Take results and heartbeats until the connection ends."""
        channel = self._connect().channel()

        def on_result(ch: BlockingChannel, method: Any, _: Any, body: bytes) -> None:
            service.finish(body)
            ch.basic_ack(method.delivery_tag)

        def on_heartbeat(ch: BlockingChannel, method: Any, _: Any, body: bytes) -> None:
            service.beat(body)
            ch.basic_ack(method.delivery_tag)

        channel.basic_consume(RESULTS, on_result)
        channel.basic_consume(HEARTBEATS, on_heartbeat)
        channel.start_consuming()

    def _publishing(self, endpoint_id: str, name: str) -> dict[str, Any]:
        return {
            "connection_url": self.url,
            "queue": name,
            "exchange": name,
            "queue_publish_kwargs": {
                "exchange": name,
                "routing_key": f"{endpoint_id}.{name}",
                "mandatory": True,
                "properties": {"delivery_mode": 1},
            },
        }

    def _open(self, queue: str) -> None:
        with self._lock:
            if queue not in self._opened:
                self._channel.queue_declare(queue)
                self._opened.add(queue)

    def _publish(self, queue: str, body: bytes, properties: pika.BasicProperties) -> None:
        with self._lock:
            self._channel.basic_publish("", queue, body, properties)
