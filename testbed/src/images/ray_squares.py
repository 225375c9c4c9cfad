import ray, time
ray.init()
until = time.monotonic() + 60
while len(ray.nodes()) < 3 and time.monotonic() < until:
    time.sleep(0.2)
square = ray.remote(lambda number: number * number)
print('SUM', sum(ray.get([square.remote(number) for number in range(20)])), 'NODES', len(ray.nodes()))
