"""Modbus devices made by others (pymodbus), by TCP or on a serial line.

    slave.py (--tcp PORT | --serial PATH) [--unit N ...]

Each unit holds: a counter (holding 0 and 1, u32) that grows with each read; numbers of every kind; a text; coils and
discrete inputs. Holding 200 is always busy; what is not named here is an illegal data address. Another unit does not
answer. Prints `ready` to stderr once it listens.
"""

import argparse
import asyncio
import struct
import sys

from pymodbus import FramerType
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

BUSY = 200


def words(layout, value):
    data = struct.pack(layout, value)
    return list(struct.unpack(f">{len(data) // 2}H", data))


def device(unit):
    reads = 0

    async def on_access(function, start, address, count, registers, values):
        nonlocal reads
        if function != 3 or values is not None:
            return None
        if address <= BUSY < address + count:
            return ExcCodes.DEVICE_BUSY
        if address == 0:
            reads += 1
            registers[0 - start], registers[1 - start] = words(">I", reads)
        return None

    holding = [
        SimData(0, values=[0, 0], datatype=DataType.REGISTERS),
        SimData(10, values=words(">f", 230.5) + words(">h", -5), datatype=DataType.REGISTERS),
        SimData(20, values=words(">d", -0.125), datatype=DataType.REGISTERS),
        SimData(24, values=words(">q", -(2**40) - unit), datatype=DataType.REGISTERS),
        SimData(28, values=words(">Q", 2**63 + 1), datatype=DataType.REGISTERS),
        SimData(32, values=words(">8s", b"PUMP-7"), datatype=DataType.REGISTERS),
        # 70,000 with its lower half first.
        SimData(40, values=words(">I", 70_000)[::-1], datatype=DataType.REGISTERS),
        SimData(BUSY, values=[0], datatype=DataType.REGISTERS),
    ]
    inputs = [SimData(0, values=[unit, 0b1010], datatype=DataType.REGISTERS)]
    coils = [SimData(0, values=[bit % 3 == 0 for bit in range(32)], datatype=DataType.BITS)]
    discrete = [SimData(0, values=[bit % 2 == 1 for bit in range(32)], datatype=DataType.BITS)]
    return SimDevice(unit, simdata=(coils, discrete, holding, inputs), action=on_access)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tcp", type=int)
    parser.add_argument("--serial")
    parser.add_argument("--unit", type=int, action="append")
    options = parser.parse_args()
    units = options.unit or [1]
    devices = [device(unit) for unit in units]
    unit_at = 6 if options.tcp else 0

    def of_known_units(sending, data):
        """pymodbus 3.16 has an answer for devices that are not there, whatever ignore_missing_devices says."""
        return b"" if sending and data[unit_at] not in units else data

    if options.tcp:
        server = ModbusTcpServer(devices, address=("127.0.0.1", options.tcp), trace_packet=of_known_units)
    else:
        server = ModbusSerialServer(
            devices, framer=FramerType.RTU, port=options.serial, baudrate=115200, trace_packet=of_known_units
        )
    serving = asyncio.create_task(server.serve_forever())
    while not server.is_active() and not serving.done():
        await asyncio.sleep(0.01)
    print("ready", file=sys.stderr, flush=True)
    await serving


asyncio.run(main())
